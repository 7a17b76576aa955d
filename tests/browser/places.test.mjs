// The same login in different deployments: under a path behind a proxy, and over https, at a proxy or at the server itself.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { makeAuthority } from './authority.mjs';
import { authorize, confirm, enterCode, expectAccessible, expectPage, launch, launchProfile, open, signIn } from './browser.mjs';
import { freePort, run, startServer, temporaryFolder } from './processes.mjs';
import { startProxy } from './sites.mjs';
import { startLogin } from './terminal.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

for (const strip of [true, false]) {
  test(`login under a path, which the proxy ${strip ? 'strips' : 'keeps'}`, async (t) => {
    const port = await freePort();
    let server;
    await startProxy(t, { port, to: () => server.port, prefix: '/cli-auth', strip });
    server = await startServer(t, { publicUrl: () => `http://localhost:${port}/cli-auth` });
    const context = await open(t, browser, { signedInTo: server.postiz.url });
    await logIn(await context.newPage(), server.url);
    const cookies = await context.cookies(`${server.url}/device/callback`);
    assert.equal(cookies.length, 1);
    const [{ name, domain, path, httpOnly, secure, sameSite }] = cookies;
    assert.match(name, /^postiz_login_[0-9a-f]{8}$/);
    assert.deepEqual([domain, path, httpOnly, secure, sameSite], ['localhost', '/', true, false, 'Lax']);
  });
}

test('two interleaved logins on two servers of one host', async (t) => {
  const paths = ['/one', '/two'];
  const port = await freePort();
  const [one, two] = [{}, {}];
  await startProxy(t, {
    port,
    to: (url) => (url.startsWith('/one/') ? one : two).server.port,
  });
  for (const [i, at] of [one, two].entries()) {
    at.server = await startServer(t, { publicUrl: () => `http://localhost:${port}${paths[i]}` });
  }
  const context = await open(t, browser);
  for (const at of [one, two]) {
    await signIn(context, at.server.postiz.url);
    at.login = await startLogin(at.server.url);
    at.page = await context.newPage();
    await at.page.goto(at.login.link);
    await confirm(at.page);
    await at.page.getByRole('button', { name: 'Authorize' }).waitFor();
  }
  for (const at of [one, two]) {
    await authorize(at.page);
    await expectPage(at.page, 'You are signed in');
    assert.equal(await at.login.outcome(), 'signed in');
  }
  const names = (await context.cookies(one.server.url)).map(({ name }) => name).filter((name) => name.startsWith('postiz_login'));
  assert.equal(new Set(names).size, 2);
});

for (const [kind, from, sendsMetadata] of [['its number', '127.0.0.1', true], ['an alias', 'alias.test', false]]) {
  test(`server at another name, ${kind}, links to its own URL`, async (t) => {
    const server = await startServer(t);
    const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
    const login = await startLogin(server.url);
    const there = (url) => url.replace('localhost', from);
    for (const arrive of [
      async () => {
        await page.goto(there(login.page));
        await enterCode(page, login.code);
      },
      async () => {
        await page.goto(there(login.link));
        await confirm(page);
      },
    ]) {
      const sent = page.waitForRequest((request) => request.method() === 'POST');
      const answered = page.waitForResponse((response) => response.request().method() === 'POST');
      await arrive();
      assert.equal('sec-fetch-site' in (await (await sent).allHeaders()), sendsMetadata);
      assert.equal((await answered).status(), 400);
      await expectPage(page, 'This server has another address');
      await expectAccessible(page);
      assert.ok((await page.getByRole('main').innerText()).includes(`localhost:${server.port}`));
      assert.equal(await login.poll(), 'authorization_pending');
    }
    await page.getByRole('link', { name: 'Enter the code' }).click();
    assert.equal(page.url(), login.page);
    await enterCode(page, login.code);
    await confirm(page);
    await authorize(page);
    await expectPage(page, 'You are signed in');
    assert.equal(await login.outcome(), 'signed in');
  });
}

test('login over https at a proxy with a certificate of a private authority', async (t) => {
  const authority = await makeAuthority();
  const port = await freePort();
  let server;
  await startProxy(t, { port, to: () => server.port, prefix: '/cli-auth', strip: true, tls: await authority.tls() });
  server = await startServer(t, { publicUrl: () => `https://localhost:${port}/cli-auth` });
  await expectSecureLogin(t, server, authority);
});

test('login over https with the server\'s own certificate', async (t) => {
  const { stdout } = await run('postiz-auth-server', ['--help']);
  if (!stdout.includes('TLS_CERT_FILE')) return t.skip('this server does not speak https itself');
  const authority = await makeAuthority();
  const { certFile, keyFile } = authority;
  const server = await startServer(t, {
    publicUrl: (port) => `https://localhost:${port}`,
    env: { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile },
  });
  await expectSecureLogin(t, server, authority);
});

/** Logs in and checks that the cookie is sent only over https. A browser that does not trust the authority shows no page. */
async function expectSecureLogin(t, server, authority) {
  const context = await launchProfile(t, await temporaryFolder(), { env: { ...process.env, HOME: authority.home } });
  await signIn(context, server.postiz.url);
  await logIn(await context.newPage(), server.url, authority.certificate);
  const [cookie] = await context.cookies(`${server.url}/device/callback`);
  assert.match(cookie.name, /^__Host-postiz_login_[0-9a-f]{8}$/);
  assert.deepEqual([cookie.domain, cookie.path], ['localhost', '/']);
  assert.ok(cookie.secure && cookie.httpOnly && cookie.sameSite === 'Lax');

  const ignorant = await open(t, browser);
  await assert.rejects((await ignorant.newPage()).goto(server.url), /ERR_CERT_AUTHORITY_INVALID/);
}

async function logIn(page, url, ca) {
  const login = await startLogin(url, { ca });
  assert.equal(login.page, `${url}/device/verify`);
  await page.goto(login.page);
  await enterCode(page, 'BCDF-GHJK');
  await expectPage(page, 'That did not work');
  await enterCode(page, login.code);
  await confirm(page);
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await login.outcome(), 'signed in');
}
