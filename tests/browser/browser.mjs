// Chromium as the system has it, watched: what a page breaks of its own policy, what it asks for, what axe says of it.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';

import { chromium } from 'playwright-core';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// Without the first ones Chromium talks to its maker at every start. Names under .test are this machine's, as in terminal.mjs.
// Root, as in a container, gets no sandbox.
const FLAGS = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--host-resolver-rules=MAP *.test 127.0.0.1',
  '--no-first-run',
  ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
];

const LAUNCH = { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, timeout: 30_000 };

/** One browser for a test file; `open` gives each test a fresh profile in it. `env` is its environment. */
export async function launch(options = {}) {
  return chromium.launch({ ...LAUNCH, ...options });
}

/** A browser with a profile folder of its own, for what only a profile can say; `env` is its environment. */
export async function launchProfile(t, folder, options = {}) {
  const context = await chromium.launchPersistentContext(folder, { ...LAUNCH, ...options });
  t.after(() => context.close());
  return watch(context);
}

/** A fresh, watched profile, signed in to the Postiz at `signedInTo` as `ada`. */
export async function open(t, browser, { signedInTo, ...options } = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  if (signedInTo) await signIn(context, signedInTo);
  return watch(context);
}

export async function signIn(context, postiz) {
  await context.addCookies([{ name: 'auth', value: 'ada', url: postiz }]);
}

function watch(context) {
  // Machines that run tests are busy.
  context.setDefaultTimeout(20_000);
  /** Everything that was refused by a Content-Security-Policy so far. */
  context.violations = [];
  context.on('console', (message) => {
    if (/content security policy/i.test(message.text())) context.violations.push(message.text());
  });
  return context;
}

/** The heading of the page that says who asks. */
export const CONFIRM = 'Does your terminal show this code?';

/** Waits for the page with this heading; it is one of ours, and has all that each of ours must have. */
export async function expectPage(page, heading) {
  await page.getByRole('heading', { level: 1, name: heading }).waitFor();
  assert.equal(await page.getByRole('main').count(), 1);
  assert.match(await page.title(), / – Postiz command line$/);
  assert.deepEqual(page.context().violations, []);
}

/** Types the code and sends it, on the page that asks for it. */
export async function enterCode(page, code) {
  await page.getByLabel('Code').fill(code);
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** Goes on to Postiz, on the page that says who asks. */
export async function confirm(page) {
  await expectPage(page, CONFIRM);
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** Allows the login on the page of Postiz. */
export async function authorize(page) {
  await page.getByRole('button', { name: 'Authorize' }).click();
}

/**
 * No rule of WCAG 2.2, A to AAA, and no best practice is broken. A page that `reloads` itself breaks the two that forbid just
 * that: it works without a script, nothing can be typed or read halfway on it, and it says that it does so.
 */
export async function expectAccessible(page, { reloads = false } = {}) {
  await page.evaluate(AXE);
  const tags = ['wcag2a', 'wcag2aa', 'wcag2aaa', 'wcag21a', 'wcag21aa', 'wcag21aaa', 'wcag22a', 'wcag22aa', 'wcag22aaa', 'best-practice'];
  const result = await page.evaluate((tags) => globalThis.axe.run({ runOnly: tags }), tags);
  const passed = result.passes.map((rule) => rule.id);
  assert.ok(passed.includes('color-contrast-enhanced'), 'the rules of level AAA did not run');
  const broken = [...result.violations, ...result.incomplete].filter(({ id }) => !reloads || !id.startsWith('meta-refresh'));
  assert.deepEqual(broken.map(({ id, nodes }) => ({ id, where: nodes.map((node) => node.html) })), []);
}
