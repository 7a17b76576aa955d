// A login is bound to its browser by the cookie, which the form's page sets, and by the form's token, which is bound to the cookie.
// Attacks on both: a sibling domain that sets a cookie, and a page that hides its origin.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { makeAuthority } from './authority.mjs';
import { authorize, confirm, enterCode, expectPage, launch, open } from './browser.mjs';
import { freePort, startServer } from './processes.mjs';
import { startProxy, startSite } from './sites.mjs';
import { confirmAlone, startLogin } from './terminal.mjs';

const SIGNED_IN = 'You are signed in';
const LOST = 'This browser lost track of the login';

let authority, browser;
before(async () => {
  authority = await makeAuthority();
  browser = await launch({ env: { ...process.env, HOME: authority.home } });
});
after(() => browser.close());

/** A server at auth.example.test, over https with its own certificate or over plain http. */
function startAt(t, scheme) {
  const tls = { TLS_CERT_FILE: authority.certFile, TLS_KEY_FILE: authority.keyFile };
  return startServer(t, {
    publicUrl: (port) => `${scheme}://auth.example.test:${port}`,
    env: scheme === 'https' ? tls : {},
  });
}

/** A site at evil.example.test that sets these cookies for its parent domain. */
async function startSibling(t, scheme, cookies) {
  const tls = scheme === 'https' ? await authority.tls() : undefined;
  const site = await startSite(t, () => 'Win a prize', { tls, headers: () => ({ 'Set-Cookie': cookies }) });
  return site.url('evil.example.test');
}

const ca = () => ({ ca: authority.certificate });
const loginCookies = async (context, url) => (await context.cookies(url)).filter(({ name }) => name.includes('postiz_login'));

for (const scheme of ['http', 'https']) {
  test(`over ${scheme}, cookie is set by the form's page, stays the same, and suffices for a login`, async (t) => {
    const server = await startAt(t, scheme);
    const login = await startLogin(server.url, ca());
    for (const first of [login.page, login.link]) {
      const context = await open(t, browser, { signedInTo: server.postiz.url });
      const page = await context.newPage();
      await page.goto(`${server.url}/health`);
      assert.deepEqual(await loginCookies(context, server.url), []);
      await page.goto(first);
      const [cookie, ...others] = await loginCookies(context, server.url);
      assert.deepEqual(others, []);
      assert.match(cookie.name, scheme === 'https' ? /^__Host-postiz_login_[0-9a-f]{8}$/ : /^postiz_login_[0-9a-f]{8}$/);
      const { domain, path, httpOnly, secure, sameSite } = cookie;
      assert.deepEqual([domain, path, httpOnly, secure, sameSite], ['auth.example.test', '/', true, scheme === 'https', 'Lax']);
      assert.ok(Math.abs(cookie.expires - Date.now() / 1000 - 900) < 30);
      await page.goto(login.page);
      await enterCode(page, login.code);
      await confirm(page);
      await page.getByRole('button', { name: 'Authorize' }).waitFor();
      const [still] = await loginCookies(context, server.url);
      assert.equal(still.value, cookie.value);
      assert.ok(still.expires >= cookie.expires);
      if (first === login.link) {
        await authorize(page);
        await expectPage(page, SIGNED_IN);
      }
    }
    assert.equal(await login.outcome(), 'signed in');
  });

  test(`over ${scheme}, two tabs without a cookie both succeed`, async (t) => {
    const port = await freePort();
    let server;
    // Both requests arrive before either is answered.
    const bothAsk = barrier(2);
    await startProxy(t, {
      port,
      to: () => server.port,
      tls: scheme === 'https' ? await authority.tls() : undefined,
      before: ({ method }) => method === 'GET' && bothAsk(),
    });
    server = await startServer(t, { publicUrl: () => `${scheme}://auth.example.test:${port}` });
    const context = await open(t, browser, { signedInTo: server.postiz.url });
    const tabs = [];
    for (let i = 0; i < 2; i++) tabs.push({ page: await context.newPage(), login: await startLogin(server.url, ca()) });
    await Promise.all(tabs.map(({ page, login }) => page.goto(login.link)));
    assert.equal((await loginCookies(context, server.url)).length, 1);
    const tokens = await Promise.all(tabs.map(({ page }) => page.locator('[name=form_token]').inputValue()));
    assert.notEqual(tokens[0], tokens[1]);
    const statuses = [];
    for (const { page, login } of tabs) {
      const answered = page.waitForResponse(login.page);
      await confirm(page);
      const status = (await answered).status();
      statuses.push(status);
      // Its form's token belongs to a cookie that the other tab has replaced.
      if (status === 200) {
        assert.equal(await login.poll(), 'authorization_pending');
        await confirm(page);
      }
      await authorize(page);
      await expectPage(page, SIGNED_IN);
      assert.equal(await login.outcome(), 'signed in');
    }
    assert.deepEqual(statuses.sort(), [200, 302]);
  });
}

test('form whose cookie was deleted is shown again with a new one', async (t) => {
  const server = await startAt(t, 'https');
  const context = await open(t, browser, { signedInTo: server.postiz.url });
  const page = await context.newPage();
  const login = await startLogin(server.url, ca());
  await page.goto(login.link);
  await context.clearCookies({ domain: 'auth.example.test' });
  await confirm(page);
  await expectPage(page, 'That did not work');
  assert.match(await page.getByRole('alert').innerText(), /did not send our cookie back/);
  assert.equal((await loginCookies(context, server.url)).length, 1);
  await page.getByRole('button', { name: 'Continue' }).click();
  await confirm(page);
  await authorize(page);
  await expectPage(page, SIGNED_IN);
  assert.equal(await login.outcome(), 'signed in');
});

// An attacker confirms his own login, sets its cookie in the victim's browser, and sends the victim to Postiz to allow it. The
// attack succeeds if the callback accepts this cookie.
const sentBySibling = 'Domain=example.test; Path=/; Secure';
const PLANTED = {
  'of its name': ({ name, key }) => `${name}=${key}; ${sentBySibling}`,
  'of its name in capitals': ({ name, key }) => `${name.replace('__Host', '__HOST')}=${key}; ${sentBySibling}`,
  'of its name without the prefix': ({ name, key }) => `${name.replace('__Host-', '')}=${key}; ${sentBySibling}`,
  'without a name': ({ name, key }) => `=${name}=${key}; ${sentBySibling}`,
  'with its name in the value': ({ name, key }) => `a=b, ${name}=${key}; ${sentBySibling}`,
  'after a blank that only Unicode knows': ({ name, key }) => `\u2000${name}=${key}; ${sentBySibling}`,
  'after a blank that only Latin-1 knows': ({ name, key }) => `\u00a0${name}=${key}; ${sentBySibling}`,
  'of the version before': ({ key }) => `__Secure-postiz_login=${key}; ${sentBySibling}`,
};
for (const [kind, planted] of Object.entries(PLANTED)) {
  test(`over https, sibling domain's cookie ${kind} is rejected`, async (t) => {
    const server = await startAt(t, 'https');
    const login = await startLogin(server.url, ca());
    const attacker = await confirmAlone(login, ca());
    const sibling = await startSibling(t, 'https', [Buffer.from(planted(attacker)).toString('latin1')]);
    for (const hasOwn of [false, true]) {
      const context = await open(t, browser, { signedInTo: server.postiz.url });
      const page = await context.newPage();
      if (hasOwn) await page.goto(`${server.url}/device/verify`);
      await page.goto(sibling);
      await page.goto(attacker.location);
      await authorize(page);
      await page.waitForURL(`${server.url}/device/callback?**`);
      assert.equal(await login.poll(), 'authorization_pending');
      await expectPage(page, LOST);
      if (!hasOwn) continue;
      // The victim's own login still works.
      const own = await startLogin(server.url, ca());
      await page.goto(own.link);
      await confirm(page);
      await authorize(page);
      await expectPage(page, SIGNED_IN);
      assert.equal(await own.outcome(), 'signed in');
    }
    // The attacker's own callback works, so only the cookie was the reason.
    const own = await open(t, browser, { signedInTo: server.postiz.url });
    await own.addCookies([{ name: attacker.name, value: attacker.key, url: server.url, secure: true }]);
    const page = await own.newPage();
    await page.goto(attacker.location);
    await authorize(page);
    await expectPage(page, SIGNED_IN);
    assert.equal(await login.outcome(), 'signed in');
  });
}

// Without https a sibling domain can set a cookie of the same name; the server detects two of them.
for (const path of ['/', '/device']) {
  test(`in clear, sibling domain's cookie with the path ${path} beside the browser's own is rejected`, async (t) => {
    const server = await startAt(t, 'http');
    const login = await startLogin(server.url);
    const attacker = await confirmAlone(login);
    const sibling = await startSibling(t, 'http', [`${attacker.name}=${attacker.key}; Domain=example.test; Path=${path}`]);
    const context = await open(t, browser, { signedInTo: server.postiz.url });
    const page = await context.newPage();
    await page.goto(`${server.url}/device/verify`);
    await page.goto(sibling);
    assert.equal((await loginCookies(context, `${server.url}/device/callback`)).length, 2);
    await page.goto(attacker.location);
    await authorize(page);
    await page.waitForURL(`${server.url}/device/callback?**`);
    assert.equal(await login.poll(), 'authorization_pending');
    await expectPage(page, LOST);
  });
}

// With a cookie of the same name and its token, a sibling's form differs from the server's only by its origin.
const FORMS = {
  'a page without referrer': (form) => `<meta name="referrer" content="no-referrer">${form}`,
  'a sandboxed frame': (form) => `<iframe sandbox="allow-forms allow-top-navigation-by-user-activation" srcdoc='${form}'></iframe>`,
  'a page that says where it is': (form) => form,
};
for (const scheme of ['http', 'https']) {
  for (const [kind, html] of Object.entries(FORMS)) {
    const [isFramed, isKnown] = [kind.includes('frame'), kind.includes('says')];
    test(`over ${scheme}, sibling domain's form on ${kind} is rejected, and the server's is accepted`, async (t) => {
      const server = await startAt(t, scheme);
      const login = await startLogin(server.url, ca());
      const { name, key, token } = await confirmAlone(await startLogin(server.url, ca()), ca());
      let action;
      const form = () => {
        const fields = { user_code: login.code, form_token: token, action };
        const inputs = Object.entries(fields).map(([field, value]) => `<input name="${field}" value="${value}">`);
        return `<form method="post" action="${login.page}" target="_top">${inputs.join('')}<button>Win</button></form>`;
      };
      const tls = scheme === 'https' ? await authority.tls() : undefined;
      const site = await startSite(t, () => html(form()), { tls });
      const sibling = site.url('evil.example.test');

      const context = await open(t, browser, { signedInTo: server.postiz.url });
      await context.addCookies([{ name, value: key, url: server.url, secure: scheme === 'https', sameSite: 'Lax' }]);
      const page = await context.newPage();
      for (action of ['', 'continue', 'deny']) {
        await page.goto(sibling);
        const [sent, answered] = [page.waitForRequest(login.page), page.waitForResponse(login.page)];
        await (isFramed ? page.frameLocator('iframe') : page).getByRole('button', { name: 'Win' }).click();
        const headers = await (await sent).allHeaders();
        assert.equal(headers.origin, isKnown ? new URL(sibling).origin : 'null');
        assert.equal('sec-fetch-site' in headers, scheme === 'https');
        // The sibling is the same site, so its form sends the cookie; a sandboxed frame has an opaque origin.
        assert.equal(headers.cookie?.includes(key) ?? false, !isFramed);
        assert.equal((await answered).status(), 403);
        await expectPage(page, 'Another website sent you here');
        assert.equal(await login.poll(), 'authorization_pending');
      }
      await page.goto(login.link);
      await confirm(page);
      await authorize(page);
      await expectPage(page, SIGNED_IN);
      assert.equal(await login.outcome(), 'signed in');
    });
  }
}

/** A barrier: each caller waits until `count` have called. */
function barrier(count) {
  let allCame;
  const all = new Promise((resolve) => (allCame = resolve));
  return () => {
    count -= 1;
    if (count === 0) allCame();
    return all;
  };
}
