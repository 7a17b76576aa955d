// The terminal's part of a login: starts it and polls for the token, as the CLI does. Also an attacker's part, who confirms a login
// by a program instead of a browser.

import dns from 'node:dns';
import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Starts a login at the server at `url`. `ca` is the certificate of a private authority, `agent` the user agent, and `machine` the
 * machine's name.
 */
export async function startLogin(url, { ca, agent = 'postiz/0.0.0 (browser tests)', machine } = {}) {
  const { body } = await post(`${url}/device/code`, { machine }, { ca, agent });
  let token;
  return {
    /** The user code as the terminal shows it: `WDJB-MJHT`. */
    code: body.user_code,
    /** The `verification_uri`. */
    page: body.verification_uri,
    /** The `verification_uri_complete`. */
    link: body.verification_uri_complete,
    /** The result of one poll: the error, or `signed in`. */
    async poll() {
      const answer = await post(`${url}/device/token`, { device_code: body.device_code }, { ca, agent });
      token = answer.body.access_token;
      return token?.startsWith('pos_') ? 'signed in' : answer.body.error;
    },
    /** Does Postiz accept the token of the last poll? */
    tokenWorksAt: (postiz) => tokenWorks(postiz, token),
    /** Polls until the result is final. A token that is being delivered or exchanged counts as pending. */
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

/** Does the Postiz at `url` accept this token? */
export async function tokenWorks(url, token) {
  const { status } = await send(`${url}/public/v1/is-connected`, { headers: { Authorization: token } });
  return status === 200;
}

/**
 * Confirms a login by a program, as an attacker does who wants another person to allow it. Returns the cookie's name and key, the
 * form's token, and the authorize URL.
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

/** Names under .test resolve to this machine, as in browser.mjs. */
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
