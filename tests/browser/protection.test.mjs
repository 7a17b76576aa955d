// Attacks by other sites (forms, frames, images, stolen links), browsers without scripts or cookies, and the pages that users see
// when Postiz or the store fails.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { CONFIRM, authorize, confirm, enterCode, expectAccessible, expectPage, launch, launchProfile, open, signIn } from './browser.mjs';
import { CLIENT, countRequests, freePort, startPostgres, startServer, temporaryFolder, waitUntil } from './processes.mjs';
import { startSite } from './sites.mjs';
import { confirmAlone, startLogin } from './terminal.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

async function begin(t, { env, database, ...options } = {}) {
  const server = await startServer(t, { env, database });
  const context = await open(t, browser, { signedInTo: server.postiz.url, ...options });
  return { server, context, page: await context.newPage(), login: await startLogin(server.url) };
}

/** Postiz' consent page. */
async function goToPostiz(page, login) {
  await page.goto(login.page);
  await enterCode(page, login.code);
  await confirm(page);
  await page.getByRole('button', { name: 'Authorize' }).waitFor();
}

// `localhost` on another port is another origin of the same site; 127.0.0.1 is another site.
for (const [kind, host] of [['site', '127.0.0.1'], ['origin', 'localhost']]) {
  for (const action of ['', 'continue', 'deny']) {
    test(`form of another ${kind} is rejected, with action "${action}"`, async (t) => {
      const { server, context, page, login } = await begin(t);
      const attacker = await startSite(t, () =>
        `<form method="post" action="${login.page}"><input name="user_code" value="${login.code}">
         <input name="action" value="${action}"><button>Win a prize</button></form>`);
      await page.goto(attacker.url(host));
      const answered = page.waitForResponse(login.page);
      await page.getByRole('button', { name: 'Win a prize' }).click();
      assert.equal((await answered).status(), 403);
      await expectPage(page, 'Another website sent you here');
      await expectAccessible(page);
      assert.deepEqual(await context.cookies(server.url), []);
      assert.equal(await login.poll(), 'authorization_pending');
      // The page links to the form.
      await page.getByRole('link', { name: 'Enter the code' }).click();
      await expectPage(page, 'Enter the code from your terminal');
    });
  }
}

test('pages cannot be framed', async (t) => {
  const { page, login } = await begin(t);
  for (const framed of [login.page, login.link, login.page.replace('verify', 'callback')]) {
    const attacker = await startSite(t, () => `<iframe src="${framed}"></iframe>`);
    const refused = page.waitForEvent('console', (message) => /frame-ancestors|X-Frame-Options/i.test(message.text()));
    await page.goto(attacker.url());
    await refused;
    await page.frames()[1].waitForURL('chrome-error://chromewebdata/');
  }
});

test('Content-Security-Policy blocks everything, and violations are recorded', async (t) => {
  const { context, page, login } = await begin(t);
  await page.goto(login.page);
  await expectPage(page, 'Enter the code from your terminal');
  for (const intruder of [
    '<img src="/health">',
    '<p style="color: red">',
    '<style>p { color: red }</style>',
    '<iframe src="/health"></iframe>',
    '<object data="/health"></object>',
  ]) {
    const before = context.violations.length;
    const refused = page.waitForEvent('console', (message) => /content security policy/i.test(message.text()));
    await page.evaluate((html) => document.body.insertAdjacentHTML('beforeend', html), intruder);
    await refused;
    assert.ok(context.violations.length > before, intruder);
  }
  await page.evaluate(() => document.body.append(Object.assign(document.createElement('script'), { textContent: 'stolen = 1' })));
  assert.equal(await page.evaluate(() => typeof globalThis.stolen), 'undefined');
});

test('text in the URL is escaped', async (t) => {
  const { context, page, login } = await begin(t);
  for (const text of ['"><script>stolen=1</script>', '</title><img src=x onerror=stolen=1>', "' autofocus onfocus=stolen=1 '"]) {
    for (const name of ['user_code', 'code']) {
      await page.goto(`${login.page}?${name}=${encodeURIComponent(text)}`);
      assert.equal(await page.getByLabel('Code').inputValue(), '');
      assert.equal(await page.locator('script, img').count(), 0);
      assert.equal(await page.evaluate(() => typeof globalThis.stolen), 'undefined');
    }
  }
  assert.deepEqual(context.violations, []);
});

test('free text in the URL is not put into the field', async (t) => {
  const { page, login } = await begin(t);
  for (const words of ['Call 555-0100 now', 'Your account is locked', '555', 'code: call 555-0100']) {
    await page.goto(`${login.page}?user_code=${encodeURIComponent(words)}`);
    await expectPage(page, 'That did not work');
    assert.equal(await page.getByLabel('Code').inputValue(), '');
    // Not `555`: the form's token may have any digits.
    assert.doesNotMatch(await page.content(), /call 555|555-|locked/i, words);
    await enterCode(page, words);
    await expectPage(page, 'That did not work');
    assert.equal(await page.getByLabel('Code').inputValue(), '');
  }
});

test('user agent is shown only if it looks like one of a program', async (t) => {
  const { server, page } = await begin(t);
  const rows = async (agent) => {
    const login = await startLogin(server.url, { agent });
    await page.goto(login.link);
    await expectPage(page, CONFIRM);
    await expectAccessible(page);
    return page.locator('dt').allInnerTexts();
  };
  for (const agent of ['Your account is locked call 555/1', 'Call/555 now', 'evil.test/1.0', 'postiz/1.0 (linux) call 555', 'x/1 (call 555 now or else)']) {
    assert.deepEqual(await rows(agent), ['Started', 'Address'], agent);
    assert.doesNotMatch(await page.content(), /call\W|555\W|locked|evil/i, agent);
  }
  assert.deepEqual(await rows('postiz/1.0 (linux)'), ['Started', 'Program', 'Address']);
  assert.equal(await page.getByRole('definition').nth(1).innerText(), 'calls itself postiz/1.0 (linux)');
});

const LIMITS = { LIMIT_WRONG_CODES_PER_MINUTE: '10', LIMIT_LOGINS_PER_MINUTE: '30' };

/** Links with twelve wrong codes. */
const wrongLinks = (server) => [...'BCDFGHJKLMNP'].map((letter) => `${server.url}/device/verify?user_code=BCDF-GHJ${letter}`);

/** All of `LIMITS` must be left: 30 logins, and 9 wrong codes before the right one. */
async function expectUnusedLimits(server, page) {
  const logins = [];
  for (let i = 0; i < 30; i++) logins.push(await startLogin(server.url));
  await page.goto(logins[0].page);
  for (let tries = 0; tries < 9; tries++) {
    const answered = page.waitForResponse(logins[0].page);
    await enterCode(page, 'BCDF-GHJK');
    assert.equal((await answered).status(), 400, `wrong code ${tries + 1} is within the budget`);
    await expectPage(page, 'That did not work');
  }
  await enterCode(page, logins[0].code);
  await confirm(page);
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await logins[0].outcome(), 'signed in');
}

// At a host for which browsers send `Sec-Fetch-*`, and at one for which they do not (plain http, not loopback).
for (const host of ['localhost', 'auth.example.test']) {
  test(`images and scripts on another site do not use up the visitor's rate limits, at ${host}`, async (t) => {
    const server = await startServer(t, { publicUrl: (port) => `http://${host}:${port}`, env: LIMITS });
    const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
    const attacker = await startSite(t, () => {
      const images = wrongLinks(server).map((link) => `<img src="${link}">`);
      return `${images.join('')}<script type="module">
        const codes = Array.from({ length: 35 }, () => fetch('${server.url}/device/code', { method: 'POST', mode: 'no-cors' }));
        document.title = (await Promise.allSettled(codes)).filter(({ status }) => status === 'fulfilled').length;
      </script>`;
    });
    await page.goto(attacker.url('attacker.test'));
    await page.waitForFunction(() => document.title === '35');
    assert.equal(countRequests(server, 'GET', '/device/verify', 200), 12);
    assert.equal(countRequests(server, 'POST', '/device/code', 403), 35);
    assert.ok(!server.log.some((line) => line.includes(' login started ')));
    await expectUnusedLimits(server, page);
  });
}

const speculation = (kind, links) =>
  `<script type="speculationrules">${JSON.stringify({ [kind]: [{ source: 'list', urls: links, eagerness: 'immediate' }] })}</script>`;
const LOADERS = {
  frames: (links) => links.map((link) => `<iframe src="${link}"></iframe>`).join(''),
  objects: (links) => links.map((link) => `<object data="${link}"></object>`).join(''),
  'links to prefetch': (links) => links.map((link) => `<link rel="prefetch" as="document" href="${link}">`).join(''),
  'scripts that ask for pages': (links) =>
    `<script>for (const link of ${JSON.stringify(links)}) fetch(link, { mode: 'no-cors', headers: { Accept: 'text/html' } })</script>`,
  'rules to prefetch': (links) => speculation('prefetch', links),
  'rules to prerender': (links) => speculation('prerender', links),
};
for (const [kind, html] of Object.entries(LOADERS)) {
  test(`${kind} on another site do not use up the visitor's rate limits`, async (t) => {
    const server = await startServer(t, { env: LIMITS });
    const context = await open(t, browser, { signedInTo: server.postiz.url });
    const attacker = await startSite(t, () => html(wrongLinks(server)));
    await (await context.newPage()).goto(attacker.url('attacker.test'));
    const asked = () => [200, 429, 503].reduce((sum, status) => sum + countRequests(server, 'GET', '/device/verify', status), 0);
    await waitUntil(() => asked() === 12);
    context.violations.length = 0;
    await expectUnusedLimits(server, await context.newPage());
  });
}

test('login without scripts', async (t) => {
  const { page, login } = await begin(t, { javaScriptEnabled: false });
  await page.goto(login.link);
  await page.getByRole('button', { name: 'Continue' }).click();
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await login.outcome(), 'signed in');
});

test('browser without cookies gets a page about cookies', async (t) => {
  const server = await startServer(t);
  const profile = await temporaryFolder();
  await mkdir(path.join(profile, 'Default'));
  const exceptions = { cookies: { [`${server.url},*`]: { setting: 2 } } };
  await writeFile(
    path.join(profile, 'Default/Preferences'),
    JSON.stringify({ profile: { content_settings: { exceptions } } }),
  );
  const context = await launchProfile(t, profile);
  await signIn(context, server.postiz.url);
  const page = await context.newPage();
  const login = await startLogin(server.url);
  for (const arrive of [
    async () => {
      await page.goto(login.page);
      await enterCode(page, login.code);
    },
    async () => {
      await page.goto(login.link);
      await confirm(page);
    },
  ]) {
    await arrive();
    await expectPage(page, 'That did not work');
    await expectAccessible(page);
    assert.match(await page.getByRole('alert').innerText(), /did not send our cookie back.*allow cookies for localhost/);
    assert.equal(await page.getByLabel('Code').inputValue(), login.code);
    assert.equal(await login.poll(), 'authorization_pending');
  }
  // If cookies are blocked only after that, the callback says so.
  const { location } = await confirmAlone(login);
  await page.goto(location);
  await authorize(page);
  await expectPage(page, 'This browser lost track of the login');
  await expectAccessible(page);
  assert.match(await page.getByRole('main').innerText(), /Allow cookies for localhost/);
  assert.equal(await login.poll(), 'authorization_pending');
  await page.getByRole('link', { name: 'Enter the code again' }).click();
  await expectPage(page, 'Enter the code from your terminal');
});

test('callback works in no other browser', async (t) => {
  const { server, context, page, login } = await begin(t);
  await goToPostiz(page, login);
  // An attacker consents to his own login and sends the callback's URL to a victim, whose terminal would be signed in as him.
  const state = new URL(page.url()).searchParams.get('state');
  const consent = await context.request.post(`${server.postiz.url}/oauth/authorize`, {
    form: { client_id: CLIENT.id, state, action: 'approve' },
    maxRedirects: 0,
  });
  const callback = consent.headers().location;
  assert.ok(callback.startsWith(login.page.replace('verify', 'callback')));
  const other = await open(t, browser, { signedInTo: server.postiz.url });
  const victim = await other.newPage();
  await victim.goto(callback);
  await expectPage(victim, 'This browser lost track of the login');
  assert.equal(await login.poll(), 'authorization_pending');
});

test('callback without parameters or with foreign ones is rejected', async (t) => {
  const { page, login } = await begin(t);
  const callback = login.page.replace('verify', 'callback');
  for (const query of ['', '?code=x', '?state=x', `?code=x&state=${'0'.repeat(64)}`, '?error=<b>Call+555</b>&error_description=Call+555']) {
    await page.goto(callback + query);
    await expectPage(page, 'This browser lost track of the login');
    assert.ok(!(await page.content()).includes('555'));
  }
});

test('error of Postiz, or a code that it rejects, is reported', async (t) => {
  const { page, login } = await begin(t);
  const cases = [
    ['error=server_error&error_description=Call+555', 'Postiz did not complete the login'],
    ['code=made-up', 'Postiz did not complete the login'],
  ];
  for (const [query, heading] of cases) {
    await goToPostiz(page, login);
    const state = new URL(page.url()).searchParams.get('state');
    await page.goto(`${login.page.replace('verify', 'callback')}?${query}&state=${state}`);
    await expectPage(page, heading);
    await expectAccessible(page);
    assert.ok(!(await page.content()).includes('555'));
    assert.equal(await login.poll(), 'authorization_pending');
  }
  await goToPostiz(page, login);
  await authorize(page);
  await expectPage(page, 'You are signed in');
});

test('unreachable Postiz is reported', async (t) => {
  const unreachable = `http://127.0.0.1:${await freePort()}`;
  const { page, login } = await begin(t, { env: { POSTIZ_API_URL: unreachable } });
  await goToPostiz(page, login);
  await authorize(page);
  await expectPage(page, 'Postiz could not be reached');
  await expectAccessible(page);
  assert.equal(await login.poll(), 'authorization_pending');
});

test('wrong client secret is reported', async (t) => {
  const { page, login } = await begin(t, { env: { POSTIZ_OAUTH_CLIENT_SECRET: 'not the secret' } });
  await goToPostiz(page, login);
  await authorize(page);
  await expectPage(page, 'This server is not set up correctly');
  await expectAccessible(page);
});

test('guessing codes is rate-limited', async (t) => {
  const { page, login } = await begin(t);
  await page.goto(login.page);
  for (let tries = 0; tries < 30; tries++) {
    await enterCode(page, 'BCDF-GHJK');
    await page.getByRole('heading', { level: 1, name: /That did not work|Too many wrong codes/ }).waitFor();
    if ((await page.getByLabel('Code').count()) === 0) break;
  }
  await expectPage(page, 'Too many wrong codes');
  await expectAccessible(page);
  assert.match(await page.getByRole('main').innerText(), /Wait \d+ (second|minute)s?, then enter/);
});

test('store that fails and recovers', async (t) => {
  const postgres = await startPostgres();
  t.after(() => postgres.end());
  const { page, login } = await begin(t, { database: postgres.url });
  await page.goto(login.page);
  await postgres.control('kill');
  await enterCode(page, login.code);
  await expectPage(page, 'Not possible at the moment');
  await expectAccessible(page);
  await postgres.control('start');
  await page.getByRole('link', { name: 'Enter the code again' }).click();
  await enterCode(page, login.code);
  await confirm(page);
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await login.outcome(), 'signed in');
});
