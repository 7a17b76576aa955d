// Plays the terminal's part of a login: asks for a code, and polls for the token as the CLI does. And a stranger's part, who
// does with a program what others do in a browser.

import dns from 'node:dns';
import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Starts a login at the server at `url`; `ca` is the certificate of a private authority, `agent` what the program calls itself, and
 * `machine` what it calls its machine.
 */
export async function startLogin(url, { ca, agent = 'postiz/0.0.0 (browser tests)', machine } = {}) {
  const { body } = await post(`${url}/device/code`, { machine }, { ca, agent });
  let token;
  return {
    /** As it stands in the terminal: `WDJB-MJHT`. */
    code: body.user_code,
    /** Where the user is sent who types the code. */
    page: body.verification_uri,
    /** Where the user is sent who follows a link. */
    link: body.verification_uri_complete,
    /** What one poll brings: the error, or `signed in`. */
    async poll() {
      const answer = await post(`${url}/device/token`, { device_code: body.device_code }, { ca, agent });
      token = answer.body.access_token;
      return token?.startsWith('pos_') ? 'signed in' : answer.body.error;
    },
    /** Does Postiz take the token that the last poll brought? */
    tokenWorksAt: (postiz) => tokenWorks(postiz, token),
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

/** Does the Postiz at `url` take this token? */
export async function tokenWorks(url, token) {
  const { status } = await send(`${url}/public/v1/is-connected`, { headers: { Authorization: token } });
  return status === 200;
}

/**
 * Confirms a login with a program, as a stranger does who wants somebody else to allow his: the cookie's name and the key in it,
 * the form's token, and the address at Postiz where it is to be allowed.
 */
export async function confirmAlone(login, { ca } = {}) {
  const page = await send(login.link, { ca, headers: { Accept: 'text/html' } });
  const [, name, key] = page.headers['set-cookie'][0].match(/^([^=]+)=([^;]+)/);
  const token = page.text.match(/name="form_token" value="(\w+)"/)[1];
  const form = new URLSearchParams({ user_code: login.code, form_token: token, action: 'continue' });
  const headers = { 'Content-Type': 'application/x-www-form-urlencoded', Cookie: `${name}=${key}` };
  const answer = await send(login.page, { ca, method: 'POST', headers, body: form.toString() });
  return { name, key, token, location: answer.headers.location };
}

async function post(url, body, { ca, agent }) {
  const headers = { 'Content-Type': 'application/json', 'User-Agent': agent };
  const { status, text } = await send(url, { method: 'POST', headers, ca, body: JSON.stringify(body) });
  try {
    return { status, body: JSON.parse(text) };
  } catch {
    throw new Error(`${url} answered ${status}: ${text}`);
  }
}

/** Names under .test are this machine's, as in browser.mjs. */
function lookup(host, options, callback) {
  dns.lookup(host.endsWith('.test') ? '127.0.0.1' : host, options, callback);
}

function send(url, { body = '', ...options }) {
  return new Promise((resolve, reject) => {
    const sent = (url.startsWith('https:') ? requestTls : request)(url, { lookup, ...options });
    sent.on('error', reject);
    sent.on('response', async (response) => {
      let text = '';
      for await (const chunk of response.setEncoding('utf8')) text += chunk;
      resolve({ status: response.statusCode, headers: response.headers, text });
    });
    sent.end(body);
  });
}
