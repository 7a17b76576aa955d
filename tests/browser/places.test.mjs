// The same login where servers are put: under a path behind a proxy, and over https, by a proxy's certificate or their own.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { authorize, enterCode, expectPage, launch, launchProfile, open, signIn } from './browser.mjs';
import { freePort, run, startServer, temporaryFolder } from './processes.mjs';
import { startProxy } from './sites.mjs';
import { startLogin } from './terminal.mjs';

const tool = promisify(execFile);

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

for (const strip of [true, false]) {
  test(`under a path, which the proxy ${strip ? 'takes away' : 'leaves there'}`, async (t) => {
    const port = await freePort();
    let server;
    await startProxy(t, { port, to: () => server.port, prefix: '/cli-auth', strip });
    server = await startServer(t, { publicUrl: () => `http://localhost:${port}/cli-auth` });
    const context = await open(t, browser, { signedInTo: server.postiz.url });
    await logIn(await context.newPage(), server.url);
    const [cookie] = await context.cookies(`${server.url}/device/callback`);
    assert.equal(cookie.path, '/cli-auth/device');
    assert.deepEqual(await context.cookies(`http://localhost:${port}/`), []);
  });
}

test('over https, at a proxy with the certificate of a private authority', async (t) => {
  const authority = await makeAuthority(t);
  const port = await freePort();
  let server;
  await startProxy(t, { port, to: () => server.port, prefix: '/cli-auth', strip: true, tls: await authority.tls() });
  server = await startServer(t, { publicUrl: () => `https://localhost:${port}/cli-auth` });
  await expectSecureLogin(t, server, authority);
});

test('over https, with a certificate of its own', async (t) => {
  const { stdout } = await run('postiz-auth-server', ['--help']);
  if (!stdout.includes('TLS_CERT_FILE')) return t.skip('this server does not speak https itself');
  const authority = await makeAuthority(t);
  const { certFile, keyFile } = authority;
  const server = await startServer(t, {
    publicUrl: (port) => `https://localhost:${port}`,
    env: { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile },
  });
  await expectSecureLogin(t, server, authority);
});

/** A login whose cookie only ever travels over https; a browser that does not know the authority does not get that far. */
async function expectSecureLogin(t, server, authority) {
  const context = await launchProfile(t, await temporaryFolder(t), { env: { ...process.env, HOME: authority.home } });
  await signIn(context, server.postiz.url);
  await logIn(await context.newPage(), server.url, authority.certificate);
  const [cookie] = await context.cookies(`${server.url}/device/callback`);
  assert.ok(cookie.name.startsWith('__Secure-'), cookie.name);
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
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await login.outcome(), 'signed in');
}

/** A certificate authority, a certificate of it for `localhost`, and a home folder whose browser trusts it. */
async function makeAuthority(t) {
  const dir = await temporaryFolder(t);
  const file = (name) => path.join(dir, name);
  const openssl = (...args) => tool('openssl', args, { cwd: dir });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=A private authority');
  await openssl('req', '-x509', ...newKey, '-keyout', 'key.pem', '-out', 'cert.pem', '-subj', '/CN=localhost',
    '-CA', 'ca.pem', '-CAkey', 'ca.key', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE');

  // Chromium on Linux keeps the user's own authorities here.
  const trusted = file('.pki/nssdb');
  await mkdir(trusted, { recursive: true });
  await tool('certutil', ['-N', '-d', `sql:${trusted}`, '--empty-password']);
  await tool('certutil', ['-A', '-d', `sql:${trusted}`, '-n', 'private', '-t', 'C,,', '-i', file('ca.pem')]);
  return {
    home: dir,
    certificate: await readFile(file('ca.pem')),
    certFile: file('cert.pem'),
    keyFile: file('key.pem'),
    tls: async () => ({ cert: await readFile(file('cert.pem')), key: await readFile(file('key.pem')) }),
  };
}
