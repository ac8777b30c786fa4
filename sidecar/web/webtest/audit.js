// What is wrong with the page that is shown now: a list of sentences.
(() => {
  const wrong = [];
  const where = e => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + ' "' + (e.textContent || '').trim().slice(0, 40) + '"';
  const shown = e => e.checkVisibility && e.checkVisibility({ visibilityProperty: true }) && !e.closest('.unseen, noscript, [hidden]');

  const ids = {};
  for (const e of document.querySelectorAll('[id]')) if (ids[e.id]++) wrong.push(`the id ${e.id} comes twice`); else ids[e.id] = ids[e.id] || 1;

  const textOf = id => (document.getElementById(id) || {}).textContent || '';
  const nameOf = e => e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '').split(/\s+/).filter(Boolean).map(textOf).join(' ')
    || (e.labels && e.labels.length ? [...e.labels].map(l => l.textContent).join(' ') : '') || e.textContent;
  for (const e of document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"], [role=img], [role=region]'))
    if (!nameOf(e).trim()) wrong.push(`${where(e)} has no name`);
  for (const e of document.querySelectorAll('svg, img'))
    if (!e.closest('[aria-hidden=true]') && !e.getAttribute('aria-labelledby') && !e.getAttribute('aria-label') && !e.getAttribute('alt')) wrong.push(`${where(e)} is drawn and has no name`);

  let level = 0;
  for (const e of document.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
    if (!shown(e)) continue;
    const n = Number(e.tagName[1]);
    if (n > level + 1) wrong.push(`${where(e)} follows a heading of level ${level}`);
    if (!e.textContent.trim()) wrong.push(`${where(e)} is an empty heading`);
    level = n;
  }
  for (const e of document.querySelectorAll('table')) if (!e.caption) wrong.push(`${where(e)} has no caption`);
  for (const e of document.querySelectorAll('th')) if (!e.scope) wrong.push(`${where(e)} has no scope`);
  if (document.querySelectorAll('main').length !== 1 || !document.querySelector('header') || !document.querySelector('footer')) wrong.push('a landmark is missing');
  if (!document.documentElement.lang) wrong.push('the page has no language');
  if (!document.title) wrong.push('the page has no title');

  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > root.clientWidth + 1 && shown(e) && !e.closest('.wide')).slice(-3).map(where);
    wrong.push(`the page is ${root.scrollWidth} wide on a screen of ${root.clientWidth}: ${wide.join('; ')}`);
  }
  for (const e of document.querySelectorAll('svg text')) {
    if (!shown(e)) continue;
    const box = e.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1) wrong.push(`${where(e)} goes beyond the screen`);
  }

  const parse = c => {
    const m = (c.match(/[\d.]+/g) || []).map(Number);
    return m.length < 3 ? null : { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 };
  };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c && c.a > 0.99) return c.rgb;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || seen.has(e) || !shown(e) || ['STYLE', 'SCRIPT', 'title', 'TITLE'].includes(e.tagName)) continue;
    seen.add(e);
    const style = getComputedStyle(e), svg = e.namespaceURI.endsWith('svg');
    const text = parse(svg ? style.fill : style.color);
    if (!text) continue;
    const a = light(text.rgb), b = light(ground(svg ? e.closest('svg').parentElement : e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < least) wrong.push(`${where(e)} has a contrast of ${ratio.toFixed(2)}, want ${least}`);
  }
  return wrong;
})()
