// Layout and accessibility of every page, at every width and in both colour schemes. A unit test has rendered the pages into
// target/pages. Screenshots are left in target/screenshots.

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { expectAccessible, launch, open } from './browser.mjs';
import { ROOT } from './processes.mjs';

const FOLDER = path.join(ROOT, 'target/pages');
const SCREENSHOTS = path.join(ROOT, 'target/screenshots');
const ORIGIN = 'http://cli-auth.example.com/';
const POLICY = await readFile(path.join(FOLDER, 'content-security-policy'), 'utf8');
const NAMES = (await readdir(FOLDER)).filter((name) => name.endsWith('.html')).map((name) => path.basename(name, '.html'));
/** The only page that reloads itself. */
const RELOADING = ['finishing'];

let browser;
before(async () => {
  browser = await launch();
  await mkdir(SCREENSHOTS, { recursive: true });
});
after(() => browser.close());

/**
 * A browser page to which each rendered page is served at `ORIGIN`, with the server's policy; `requests` counts its requests. The
 * reload of the page that reloads itself is answered 204, so that it stays.
 */
async function gallery(t, options) {
  const context = await open(t, browser, options);
  const page = await context.newPage();
  page.requests = [];
  const shown = new Set();
  page.on('request', (request) => page.requests.push(request.url()));
  await page.route(`${ORIGIN}*`, (route) => {
    const name = route.request().url().slice(ORIGIN.length);
    if (RELOADING.includes(name) && shown.has(name)) return route.fulfill({ status: 204 });
    shown.add(name);
    return route.fulfill({
      path: path.join(FOLDER, `${name}.html`),
      headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': POLICY },
    });
  });
  return page;
}

for (const colorScheme of ['light', 'dark']) {
  for (const width of [320, 768, 1280]) {
    test(`every page has the right layout, ${colorScheme}, ${width} px wide`, async (t) => {
      const page = await gallery(t, { colorScheme, viewport: { width, height: width < 400 ? 640 : 800 } });
      for (const name of NAMES) {
        await page.goto(ORIGIN + name);
        await page.screenshot({ path: path.join(SCREENSHOTS, `${name}-${width}-${colorScheme}.png`), fullPage: true });
        await expectFits(page, name);
        // At one width only: the check takes a third of a second, and colours and structure are the same at every width.
        if (width === 320) await expectAccessible(page, { reloads: RELOADING.includes(name) });
      }
      assert.deepEqual(page.context().violations, []);
    });
  }
}

test('every page needs only one request', async (t) => {
  const page = await gallery(t);
  for (const name of NAMES) await page.goto(ORIGIN + name);
  assert.deepEqual(page.requests.filter((url) => !url.startsWith('data:')), NAMES.map((name) => ORIGIN + name));
});

test('text is not cut off at 280 px, nor at 1280 px with zoom 400 %', async (t) => {
  for (const viewport of [{ width: 280, height: 653 }, { width: 320, height: 256 }]) {
    const page = await gallery(t, { viewport });
    for (const name of NAMES) {
      await page.goto(ORIGIN + name);
      await expectFits(page, name);
    }
  }
});

test('text is not cut off with larger text spacing', async (t) => {
  // WCAG 1.4.12. A user style sheet is not subject to the page's policy.
  const page = await gallery(t, { viewport: { width: 320, height: 640 }, bypassCSP: true });
  const content = '* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important } p { margin-bottom: 2em !important }';
  for (const name of NAMES) {
    await page.goto(ORIGIN + name);
    await page.addStyleTag({ content });
    await expectFits(page, name);
  }
});

test('layout does not shift', async (t) => {
  const page = await gallery(t, { viewport: { width: 320, height: 640 } });
  for (const name of NAMES) {
    await page.goto(ORIGIN + name);
    const shift = await page.evaluate(async () => {
      let sum = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => (sum += entry.value)))
        .observe({ type: 'layout-shift', buffered: true });
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return sum;
    });
    assert.equal(shift, 0, name);
  }
});

test('animations are off with prefers-reduced-motion', async (t) => {
  for (const [reducedMotion, duration] of [['reduce', '0s'], ['no-preference', '0.15s']]) {
    const page = await gallery(t, { reducedMotion });
    await page.goto(`${ORIGIN}confirm`);
    const button = page.getByRole('button', { name: 'Refuse' });
    assert.equal(await button.evaluate((it) => getComputedStyle(it).transitionDuration), duration);
  }
});

test('refuse button is as prominent as the continue button', async (t) => {
  for (const width of [320, 1280]) {
    const page = await gallery(t, { viewport: { width, height: 800 } });
    await page.goto(`${ORIGIN}confirm`);
    const [goOn, refuse] = await Promise.all(
      ['Continue', 'Refuse'].map((name) => page.getByRole('button', { name }).boundingBox()),
    );
    assert.deepEqual([goOn.width, goOn.height], [refuse.width, refuse.height]);
    assert.ok(refuse.y + refuse.height <= 800, 'both are in sight');
  }
});

test('double click on the code form presses no button of the next page', async (t) => {
  for (const viewport of [{ width: 320, height: 640 }, { width: 1280, height: 800 }]) {
    const page = await gallery(t, { viewport });
    const boxes = async (name) => {
      await page.goto(ORIGIN + name);
      return Promise.all((await page.getByRole('button').all()).map((button) => button.boundingBox()));
    };
    const next = await boxes('confirm');
    for (const name of NAMES.filter((name) => /^(enter-code|no-cookie)/.test(name))) {
      for (const { y, height } of await boxes(name)) {
        assert.ok(next.every((box) => box.y >= y + height || box.y + box.height <= y), `${name}, ${viewport.width} px`);
      }
    }
  }
});

test('error moves the focus to the field, which is invalid and has a description', async (t) => {
  const page = await gallery(t);
  for (const [name, why] of [['enter-code-missing', 'The field was empty'], ['enter-code-unknown', 'This code is mistyped']]) {
    await page.goto(ORIGIN + name);
    await page.locator('#user_code:focus').waitFor();
    assert.match(await page.getByRole('alert').innerText(), new RegExp(why));
    const { description, properties } = await heard(page, '#user_code');
    assert.match(description.value, new RegExp(`${why}.*Eight letters and digits`));
    assert.equal(properties.find(({ name }) => name === 'invalid').value.value, 'true');
  }
});

test('code is read out letter by letter', async (t) => {
  const page = await gallery(t);
  await page.goto(`${ORIGIN}confirm`);
  const client = await page.context().newCDPSession(page);
  const { nodes } = await client.send('Accessibility.getFullAXTree');
  const said = nodes.filter((node) => !node.ignored && node.role.value === 'StaticText').map((node) => node.name.value);
  assert.ok(said.includes('W D J B, M J H T'), said.join('|'));
  assert.ok(!said.some((text) => text.includes('WDJB')), said.join('|'));
});

/** The accessibility node of an element. */
async function heard(page, selector) {
  const client = await page.context().newCDPSession(page);
  const { root } = await client.send('DOM.getDocument');
  const { nodeId } = await client.send('DOM.querySelector', { nodeId: root.nodeId, selector });
  const { nodes } = await client.send('Accessibility.getPartialAXTree', { nodeId, fetchRelatives: false });
  return nodes[0];
}

/** The page must not scroll sideways, and no text may be wider than its box. */
async function expectFits(page, name) {
  const wider = await page.evaluate(() =>
    [document.documentElement, ...document.querySelectorAll('main *, footer *')]
      .filter((it) => it.clientWidth > 1 && it.scrollWidth > it.clientWidth && it.tagName !== 'INPUT')
      .map((it) => it.outerHTML.slice(0, 80)),
  );
  assert.deepEqual(wider, [], name);
}
