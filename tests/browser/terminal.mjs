// Plays the terminal's part of a login: asks for a code, and polls for the token as the CLI does.

import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

/** Starts a login at the server at `url`; `ca` is the certificate of a private authority. */
export async function startLogin(url, { ca } = {}) {
  const { body } = await post(`${url}/device/code`, {}, ca);
  return {
    /** As it stands in the terminal: `WDJB-MJHT`. */
    code: body.user_code,
    /** Where the user is sent who types the code. */
    page: body.verification_uri,
    /** Where the user is sent who follows a link. */
    link: body.verification_uri_complete,
    /** What one poll brings: the error, or `signed in`. */
    async poll() {
      const answer = await post(`${url}/device/token`, { device_code: body.device_code }, ca);
      return answer.body.access_token?.startsWith('pos_') ? 'signed in' : answer.body.error;
    },
    /** What polling ends with. A token that is just being handed over, or exchanged, counts as pending. */
    async outcome() {
      for (let tries = 0; tries < 50; tries++) {
        const answer = await this.poll();
        if (answer !== 'authorization_pending') return answer;
        await sleep(100);
      }
      return 'authorization_pending';
    },
  };
}

async function post(url, body, ca) {
  const headers = { 'Content-Type': 'application/json', 'User-Agent': 'postiz/0.0.0 (browser tests)' };
  return new Promise((resolve, reject) => {
    const sent = (url.startsWith('https:') ? requestTls : request)(url, { method: 'POST', headers, ca });
    sent.on('error', reject);
    sent.on('response', async (response) => {
      let text = '';
      for await (const chunk of response.setEncoding('utf8')) text += chunk;
      try {
        resolve({ status: response.statusCode, body: JSON.parse(text) });
      } catch {
        reject(new Error(`${url} answered ${response.statusCode}: ${text}`));
      }
    });
    sent.end(JSON.stringify(body));
  });
}
