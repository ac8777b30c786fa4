'use strict';
// The page of a cluster. The sidecar sends one JSON document (cluster.json) per event; show() puts it on the page. Nothing is asked of
// anybody else, and all text is set as text: names come from other machines.
(() => {
  const $ = id => document.getElementById(id);

  // h makes an element of HTML, s one of SVG.
  const make = ns => (tag, attrs, ...children) => {
    const e = ns ? document.createElementNS(ns, tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attrs || {})) if (v !== undefined && v !== null && v !== false) e.setAttribute(k, v === true ? '' : v);
    e.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== ''));
    return e;
  };
  const h = make(''), s = make('http://www.w3.org/2000/svg');

  // fill changes what an element holds, if that is something else: so a selection lives as long as what it selects.
  const fill = (e, ...children) => {
    const next = h('div', {}, ...children);
    if (e.shown === next.innerHTML) return;
    e.shown = next.innerHTML;
    e.replaceChildren(...next.childNodes);
  };

  // --- words

  const count = (n, what) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
  const bytes = n => {
    const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
    let i = 0;
    for (; n >= 1000 && i < units.length - 1; i++) n /= 1024;
    return `${i === 0 || n >= 9.95 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
  };
  const known = t => t && !t.startsWith('0001-') && !t.startsWith('1970-01-01T00:00:00Z');
  const two = n => String(n).padStart(2, '0');
  const clock = d => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  const day = d => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  const moment = (t, from) => day(new Date(t)) === day(new Date(from)) ? clock(new Date(t)) : `${day(new Date(t))} ${clock(new Date(t))}`;
  const time = t => h('time', { datetime: t, title: t, class: 'nowrap' }, moment(t, doc.status.time));
  const span = seconds => {
    const n = Math.max(0, Math.round(seconds));
    if (n < 120) return `${n} s`;
    if (n < 7200) return `${Math.floor(n / 60)} min`;
    if (n < 172800) return `${Math.floor(n / 3600)} h`;
    return `${Math.floor(n / 86400)} days`;
  };

  // --- the connection

  let doc = null;      // the last document
  let arrived = 0;     // when it came, by performance.now()
  let arrivedAt = null; // and by the clock on the wall
  let lost = false;
  let source = null;

  // now is the asked sidecar's clock, which stands still while the connection is lost: the page shows what was true then.
  const now = () => new Date(doc.status.time).getTime() + (lost ? 0 : performance.now() - arrived);
  const ago = t => h('span', { 'data-since': t, class: 'nowrap' });
  const tick = () => {
    if (!doc) return;
    for (const e of document.querySelectorAll('[data-since]')) {
      const text = span((now() - new Date(e.dataset.since)) / 1000);
      if (e.textContent !== text) e.textContent = text;
    }
    if (lost) tellLost();
  };

  const connect = () => {
    if (source) source.close();
    source = new EventSource('events');
    source.addEventListener('cluster', event => {
      doc = JSON.parse(event.data);
      arrived = performance.now();
      arrivedAt = new Date();
      show();
      found();
    });
    source.onerror = () => lose();
  };
  const lose = () => {
    if (lost) return;
    lost = true;
    document.body.className = 'stale';
    fill($('link-text'), 'Not connected');
    tellLost();
    $('lost').hidden = false;
    say(doc ? `The connection to ${doc.asked} is lost. The page shows what was true at ${clock(arrivedAt)}.` : 'No sidecar answers.');
  };
  const tellLost = () => {
    if (!doc) return fill($('lost'), 'The sidecar does not answer. Trying again …');
    fill($('lost'), `No connection to ${doc.asked}. What you see was true at ${clock(arrivedAt)}, ${span((performance.now() - arrived) / 1000)} ago. Trying again …`);
  };
  const found = () => {
    if (lost) say(`The connection to ${doc.asked} is back.`);
    lost = false;
    document.body.className = 'live';
    fill($('link-text'), `Live, ${clock(arrivedAt)}`);
    $('lost').hidden = true;
  };
  // A network can fall silent without an error, a browser gives up after some answers, and a laptop sleeps.
  setInterval(() => {
    const silent = performance.now() - arrived > 10000;
    if (silent && doc) lose();
    if (source.readyState === EventSource.CLOSED || silent && lost) {
      arrived = doc ? arrived : performance.now();
      if (performance.now() - (connect.last || 0) > 6000) {
        connect.last = performance.now();
        connect();
      }
    }
  }, 1000);

  let said = '';
  const say = text => {
    if (text !== said) $('said').textContent = said = text;
  };

  // --- the parts of the page

  let before = '';
  const show = () => {
    const st = doc.status, v = doc.verdict;
    fill($('scope'), st.scope);
    document.querySelector('.verdict').dataset.level = v.level;
    fill($('sign'), { well: '✓', changing: '↻', wrong: '!' }[v.level]);
    fill($('headline'), v.headline);
    fill($('sentence'), v.sentence);
    document.title = `${{ well: '✓', changing: '↻', wrong: '!' }[v.level]} ${v.headline} · ${st.scope} · walbaton`;
    list($('problems'), v.problems);
    list($('notes'), v.notes);
    $('notes-title').hidden = v.notes.length === 0;
    fill($('facts'), facts(st));
    fill($('members'), st.members.map((m, i) => member(st, m, doc.members[i])));
    fill($('changes'), doc.role_changes.length ? doc.role_changes.slice().reverse().map(c => h('li', {}, time(c.at), h('span', {}, c.text)))
      : h('li', {}, h('span', {}, 'None was seen yet.')));
    fill($('archives'), archives(st));
    fill($('about'), `Shown by ${doc.asked}, walbaton ${st.version}. Times are those of this browser (${zone()}). This page changes nothing.`);
    timelines(st.archive);
    rates(doc.members);
    tick();
    const holder = st.baton.holder ? `${st.baton.holder} holds the baton.` : '';
    const sentence = `${v.headline}. ${holder}`;
    if (sentence !== before && !lost) say(sentence);
    before = sentence;
  };
  const zone = () => {
    const minutes = -new Date().getTimezoneOffset(), abs = Math.abs(minutes);
    const utc = minutes === 0 ? 'UTC' : `UTC${minutes < 0 ? '−' : '+'}${Math.floor(abs / 60)}${abs % 60 ? ':' + two(abs % 60) : ''}`;
    const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
    return name && name !== 'UTC' ? `${name}, ${utc}` : utc;
  };

  // list shows sentences; what to do about one stands in its further lines.
  const list = (e, texts) => {
    fill(e, texts.map(text => {
      let [what, ...how] = text.split('\n');
      const said = `${doc.verdict.headline.toLowerCase()}: `;
      if (what.toLowerCase().startsWith(said)) [what, how] = ['', [what.slice(said.length), ...how]]; // the headline says it
      return h('li', {}, what, how.length ? h('span', { class: 'how' }, how.join(' ')) : null);
    }));
    e.hidden = texts.length === 0;
  };

  const fact = (name, big, bad, ...small) => h('div', {}, h('dt', {}, name), h('dd', { class: bad ? 'big bad' : 'big' }, big), h('dd', { class: 'small' }, small));

  const facts = st => [baton(st), missing(st), frontier(st), restorable(st)];

  const baton = st => {
    const b = st.baton;
    if (st.dcs.static || st.dcs.rest) {
      const p = st.members.find(m => m.leader);
      return fact('Who ships', p ? p.name : 'nobody', !p, b.why || '');
    }
    if (known(b.as_of)) return fact('Baton', b.holder ? `${b.holder} held it` : 'nobody held it', false, 'as the DCS said last, ', ago(b.as_of), ' ago');
    if (!b.holder) return fact('Baton', 'nobody holds it', true, b.why || '');
    return fact('Baton', b.holder, false, known(b.since) ? ['since ', time(b.since), ' (', ago(b.since), ')'] : 'since when its sidecar does not say',
      b.term ? `, term ${b.term}` : '', b.why ? h('br') : null, b.why || '');
  };

  // The holder knows what the archive has. Another node may not have compared its own WAL with it yet, which is nothing to worry about.
  const missing = st => {
    const v = st.archive.verify, gone = v ? v.missing_segments : 0, lacks = st.archive.lacks || 0, small = [];
    const holder = !known(st.baton.as_of) && st.members.find(m => m.baton && m.sidecar);
    const others = st.members.filter(m => m.misses > 0 && m !== holder);
    if (gone) small.push(`${count(gone, 'segment')} in ${v.holes === 1 ? 'a hole' : count(v.holes, 'hole')}`);
    if (holder && holder.misses) small.push(`${holder.name} ships ${count(holder.misses, 'segment')}, ${bytes(holder.misses_bytes)}`);
    if (lacks) small.push(`${count(lacks, 'segment')} that other nodes have to ship`);
    for (const m of others) small.push(`${m.name}: ${count(m.misses, 'segment')} ${holder ? 'not compared yet' : `, ${bytes(m.misses_bytes)}`}`.replace(' ,', ','));
    const most = gone + (holder ? holder.misses + lacks : Math.max(0, ...others.map(m => m.misses)));
    return fact('Missing in the archive', most ? count(most, 'segment') : 'nothing', gone > 0,
      small.length ? small.flatMap((t, i) => i ? [h('br'), t] : [t]) : 'of what is complete on any node');
  };

  // What was shipped once may be gone: only verify sees that.
  const holed = a => a.verify && a.verify.missing_segments > 0;
  const frontier = st => {
    const a = st.archive;
    if (!a.frontier_segment) return fact('Frontier', a.open ? 'not known yet' : '–', false, a.open ? 'no segment was seen in the archive' : a.why || '');
    const w = (a.windows || []).at(-1);
    return fact('Frontier', h('span', { class: 'mono' }, a.frontier_lsn), false,
      known(a.frontier_moved) ? ['reached ', ago(a.frontier_moved), ' ago'] : '',
      w && known(w.to) && w.to_lsn === a.frontier_lsn ? [h('br'), 'last commit in it: ', time(w.to)] : '',
      holed(a) ? [h('br'), 'as far as was shipped: below it is a hole'] : '');
  };

  const restorable = st => {
    const all = st.archive.windows || [], w = all.at(-1);
    if (!w) return fact('Restorable', 'not known', false, doc.window.replace(/^what can be restored is not known( yet)?:? /, '') || 'the holder of the baton knows');
    const small = all.length > 1 ? [`and ${count(all.length - 1, 'older window')} before the hole`] : ['to any moment, from a base backup that was taken in between'];
    if (!known(w.from) || !known(w.to)) return fact('Restorable', [h('span', { class: 'mono' }, w.from_lsn), ' to ', h('span', { class: 'mono' }, w.to_lsn)], false, small);
    return fact('Restorable', [time(w.from), ' to ', time(w.to)], false, small);
  };

  const cell = (label, ...content) => h('td', { role: 'cell', 'data-label': label }, content);
  const sub = text => text ? h('span', { class: 'sub' }, text) : null;
  const member = (st, m, own) => {
    const badge = !m.baton ? null : known(st.baton.as_of) ? h('span', { class: 'badge was' }, 'held the baton') : h('span', { class: 'badge' }, 'baton');
    const bad = text => h('span', { class: 'bad' }, text);
    const quiet = m.sidecar && !own.answers && own.why;
    return h('tr', { role: 'row' },
      h('th', { role: 'rowheader', scope: 'row' }, h('span', { class: 'name' }, m.name), badge, sub(m.host)),
      cell('Role', m.role || '–', m.leader && m.role !== 'primary' ? ' (leader)' : '', sub(m.tag ? `walbaton: ${m.tag}` : '')),
      cell('State', m.state || '–', sub(m.archive_mode ? `archive_mode ${m.archive_mode}` : '')),
      cell('Timeline', m.timeline || '–'),
      cell('Sidecar', m.sidecar ? (quiet ? 'alive, not reached from here' : 'alive') : st.dcs.rest ? 'not known' : bad('absent'), sub(m.version)),
      cell('Archive', !m.sidecar ? '–' : m.store_answers ? 'answers' : bad('silent')),
      h('td', { role: 'cell', 'data-label': 'Segments here', class: 'number' }, m.sidecar ? m.has.toLocaleString('en') : '–'),
      cell('Not known to be archived', !m.sidecar ? '–' : !m.misses ? 'none' : `${count(m.misses, 'segment')}, ${bytes(m.misses_bytes)}`,
        sub(m.misses && own.oldest_missing ? `from ${own.oldest_missing} on` : ''), m.wal_disk_full ? bad(' its disk is full') : null));
  };

  const archives = st => {
    const a = st.archive, each = a.each || [];
    const one = (name, url, answers, why, more) => h('li', {}, h('p', {}, name ? h('strong', {}, name + ' ') : null, h('span', { class: 'mono' }, url)),
      h('p', { class: answers ? 'soft' : 'bad' }, answers ? '✓ answers' : `✗ ${why}`), more.filter(Boolean).map(t => h('p', { class: 'soft' }, t)));
    if (!each.length) {
      return one('', a.url, a.open && a.answers, a.open ? `does not answer: ${a.why}` : `not open: ${a.why}`,
        [a.frontier_segment ? `${holed(a) ? 'shipped' : 'whole'} from ${a.frontier_from_lsn} to ${a.frontier_lsn}${holed(a) ? ', with a hole' : ''}` : '', looked(a.verify)]);
    }
    return each.map(e => one(e.name, e.archive || '', e.answers, `does not answer${e.why ? ': ' + e.why : ''}`,
      [e.required ? 'push waits for it' : 'not required: it is filled when it can be', e.frontier_lsn ? `whole up to ${e.frontier_lsn}` : '',
        e.lacks ? `lacks ${count(e.lacks, 'segment')}` : '', e.differs ? `has other content under ${count(e.differs, 'name')}` : '']))
      .concat(looked(a.verify) ? h('li', {}, h('p', { class: 'soft' }, looked(a.verify))) : []);
  };
  const looked = v => {
    if (!v || !known(v.at)) return '';
    const found = v.problems ? `${count(v.problems, 'problem')} found` : v.acknowledged_holes ? `nothing new found, ${count(v.acknowledged_holes, 'hole')} known and acknowledged` : 'nothing missing';
    return `all names looked at ${moment(v.at, doc.status.time)}: ${found}`;
  };

  // --- timelines

  const lsn = text => {
    const [hi, lo] = (text || '0/0').split('/');
    return parseInt(hi, 16) * 4294967296 + parseInt(lo, 16);
  };
  const timelines = a => {
    const t = a.timelines, rows = t ? t.rows : [];
    const note = !t ? 'No timeline is known yet.'
      : known(t.at) ? `As the archive was at ${moment(t.at, doc.status.time)}, with what was shipped since.` + (t.older ? ` ${count(t.older, 'older timeline')} not shown.` : '')
        : 'The line alone, as PostgreSQL tells it. Branches and holes are shown when the holder of the baton has looked at the archive.';
    fill($('timelines-note'), note);
    fill($('timelines'), rows.map(r => h('tr', {}, h('th', { scope: 'row' }, String(r.timeline)),
      h('td', {}, r.parent ? `timeline ${r.parent}` : '–'), h('td', { class: 'mono' }, r.fork_lsn || '–'), h('td', { class: 'mono' }, r.begin_lsn), h('td', { class: 'mono' }, r.end_lsn),
      h('td', {}, r.newest ? 'the newest of the line' : r.on_line ? 'of the line' : 'a branch'),
      h('td', {}, (r.holes || []).length ? r.holes.map(x => `${x.from_lsn} to ${x.to_lsn}${x.acknowledged ? ' (acknowledged)' : ''}`).join(', ') : 'nothing'), h('td', {}, (r.notes || []).join(', ')))));
    drawTree(rows, a.floor_lsn);
  };

  let treeKey = '';
  const drawTree = (rows, floor) => {
    const svg = $('tree'), width = svg.parentNode.clientWidth - 40;
    const key = JSON.stringify([rows, floor, width]);
    if (key === treeKey) return;
    treeKey = key;
    if (!rows.length) {
      svg.replaceChildren();
      svg.setAttribute('height', 0);
      return fill($('tree-legend'));
    }
    const all = rows.flatMap(r => [lsn(r.begin_lsn), lsn(r.end_lsn), ...(r.holes || []).flatMap(x => [lsn(x.from_lsn), lsn(x.to_lsn)])]);
    let lo = Math.min(...all), hi = Math.max(...all);
    const showFloor = floor && lsn(floor) >= lo - (hi - lo) * 0.1;
    if (showFloor) lo = Math.min(lo, lsn(floor));
    if (hi <= lo) hi = lo + 1;
    const bar = 14, top = 8, right = 14, letter = 7, leading = 17;
    const x = l => (l - lo) / (hi - lo) * (width - right);
    const words = r => [`timeline ${r.timeline}`, r.parent ? `left ${r.parent} at ${r.fork_lsn}` : '', ...(r.notes || [])].filter(Boolean);
    const starts = rows.map(r => x(lsn(r.begin_lsn)) + 8 + words(r).join(' · ').length * letter < width ? x(lsn(r.begin_lsn)) + 8 : 8);
    const labels = rows.map((r, i) => wrap(words(r), (width - starts[i]) / letter));
    const tops = [top];
    for (const lines of labels) tops.push(tops.at(-1) + leading * lines.length + bar + 18);
    const y = i => tops[i + 1] - bar - 12; // of the bar, below its words
    const at = n => rows.findIndex(r => r.timeline === n);
    const forks = [], bars = [], texts = [];
    rows.forEach((r, i) => {
      const from = x(lsn(r.begin_lsn)), to = Math.max(x(lsn(r.end_lsn)), from + 3), kind = r.on_line ? 'on-line' : 'branch';
      if (r.parent && at(r.parent) >= 0) forks.push(s('path', { class: 'fork', d: `M${x(lsn(r.fork_lsn))} ${y(at(r.parent)) + bar} V${y(i) + bar / 2} h4` }));
      bars.push(s('rect', { class: kind, x: from, y: y(i), width: to - from, height: bar, rx: 3 }));
      if (r.newest) bars.push(s('path', { class: kind, d: `M${to - 1} ${y(i) - 4} l12 ${bar / 2 + 4} l-12 ${bar / 2 + 4} z` }));
      for (const m of r.holes || []) {
        const a = x(lsn(m.from_lsn)), b = Math.max(x(lsn(m.to_lsn)), a + 7);
        bars.push(s('rect', { class: m.acknowledged ? 'hole known' : 'hole', x: a, y: y(i) - 3, width: b - a, height: bar + 6 },
          s('title', {}, `${m.from_lsn} to ${m.to_lsn} is missing`)));
      }
      labels[i].forEach((line, k) => {
        const [first, ...rest] = line;
        texts.push(s('text', { class: 'halo', x: starts[i], y: tops[i] + leading * (k + 1) - 5 }, k ? s('tspan', { class: 'soft' }, line.join(' · ')) : [s('tspan', { 'font-weight': 600 }, first),
          rest.length ? s('tspan', { class: 'soft' }, ' · ' + rest.join(' · ')) : null]));
      });
    });
    const bottom = tops.at(-1);
    const scale = [s('line', { class: 'rule', x1: 0, y1: bottom + 2, x2: width, y2: bottom + 2 }),
      s('text', { class: 'soft', x: 0, y: bottom + 20 }, hex(lo)), s('text', { class: 'soft', x: width, y: bottom + 20, 'text-anchor': 'end' }, hex(hi))];
    if (showFloor) scale.push(s('line', { class: 'floor', x1: x(lsn(floor)), y1: top, x2: x(lsn(floor)), y2: bottom }));
    svg.setAttribute('height', bottom + 26);
    svg.setAttribute('viewBox', `0 0 ${width} ${bottom + 26}`);
    svg.replaceChildren(...forks, ...scale, ...bars, ...texts);
    const holes = rows.flatMap(r => r.holes || []);
    const sample = (...shapes) => s('svg', { viewBox: '0 0 22 12', 'aria-hidden': 'true' }, ...shapes);
    const box = kind => sample(s('rect', { class: kind, x: 1, y: 1, width: 20, height: 10, rx: kind.startsWith('hole') ? 0 : 3 }));
    fill($('tree-legend'), h('span', {}, box('on-line'), 'the line'),
      rows.some(r => !r.on_line) ? h('span', {}, box('branch'), 'a branch') : null,
      holes.some(x => !x.acknowledged) ? h('span', {}, box('hole'), 'missing') : null,
      holes.some(x => x.acknowledged) ? h('span', {}, box('hole known'), 'missing, acknowledged') : null,
      showFloor ? h('span', {}, sample(s('line', { class: 'floor', x1: 11, y1: 0, x2: 11, y2: 12 })), 'floor: nothing is promised to the left of it') : null);
  };
  // wrap puts words on lines of some n letters.
  const wrap = (words, n) => {
    const lines = [[]];
    for (const w of words) {
      if (lines.at(-1).length && [...lines.at(-1), w].join(' · ').length > n) lines.push([]);
      lines.at(-1).push(w);
    }
    return lines;
  };
  const hex = n => `${Math.floor(n / 4294967296).toString(16).toUpperCase()}/${(n % 4294967296).toString(16).toUpperCase()}`;

  // --- rates

  const MINUTE = 60000;
  const rates = members => {
    const own = members.filter(m => m.rates);
    if (!own.length) {
      fill($('rates-words'), 'No sidecar has counted yet.');
      return;
    }
    const end = Math.floor(new Date(doc.status.time) / MINUTE) * MINUTE;
    const begun = Math.min(...own.map(m => new Date(m.rates.first).getTime()));
    const n = Math.max(10, Math.min(60, Math.round((end - begun) / MINUTE) + 1));
    const minutes = Array.from({ length: n }, (_, i) => ({ at: end - (n - 1 - i) * MINUTE, segments: 0, bytes: 0, by: {} }));
    for (const m of own) {
      const first = Math.round((new Date(m.rates.first) - minutes[0].at) / MINUTE);
      m.rates.segments.forEach((count, i) => {
        const to = minutes[first + i];
        if (!to) return;
        to.segments += count;
        to.bytes += m.rates.bytes[i];
        to.by[m.name] = { segments: count, bytes: m.rates.bytes[i] };
      });
    }
    const whole = minutes[n - 2];
    fill($('rate-segments'), whole.segments.toLocaleString('en'));
    fill($('rate-bytes'), bytes(whole.bytes));
    const sum = minutes.reduce((a, m) => ({ segments: a.segments + m.segments, bytes: a.bytes + m.bytes }), { segments: 0, bytes: 0 });
    const most = minutes.reduce((a, m) => m.segments > a.segments ? m : a);
    const since = end - begun < (n - 1) * MINUTE || n < 60 ? `since ${moment(new Date(begun).toISOString(), doc.status.time)}` : 'in the last hour';
    fill($('rates-words'), `The numbers are those of the last whole minute; the grey bar is the one that is not over. ${count(sum.segments, 'segment')}, ${bytes(sum.bytes)} ${since}`
      + (most.segments ? `; at most ${most.segments.toLocaleString('en')} in a minute, at ${clock(new Date(most.at)).slice(0, 5)}.` : '.'));
    drawBars($('chart-segments'), minutes, m => m.segments, v => v.toLocaleString('en'));
    drawBars($('chart-bytes'), minutes, m => m.bytes, bytes);
    fill($('rates-head'), h('th', { scope: 'col' }, 'Minute'), own.map(m => [h('th', { scope: 'col', class: 'number' }, `${m.name}: segments`), h('th', { scope: 'col', class: 'number' }, `${m.name}: bytes`)]));
    fill($('rates'), minutes.slice().reverse().map(m => h('tr', {}, h('th', { scope: 'row' }, clock(new Date(m.at)).slice(0, 5)),
      own.map(o => [h('td', { class: 'number' }, m.by[o.name] ? m.by[o.name].segments.toLocaleString('en') : '–'), h('td', { class: 'number' }, m.by[o.name] ? bytes(m.by[o.name].bytes) : '–')]))));
  };

  const nice = v => {
    if (v <= 4) return Math.max(v, 1);
    const p = 10 ** Math.floor(Math.log10(v));
    return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(k => k * p).find(k => k >= v);
  };
  const niceBytes = v => {
    let unit = 1;
    while (v / unit > 500) unit *= 1024;
    return nice(v / unit) * unit;
  };
  const drawBars = (svg, minutes, value, text) => {
    const width = svg.parentNode.clientWidth - 40, height = 116, base = 84, top = 16, n = minutes.length;
    const key = JSON.stringify([width, minutes.map(m => [value(m), m.by])]);
    if (svg.key === key) return;
    svg.key = key;
    const max = (text === bytes ? niceBytes : nice)(Math.max(...minutes.map(value)));
    const step = width / n, gap = Math.min(3, step * 0.25);
    const bars = minutes.map((m, i) => {
      const tall = value(m) ? Math.max((base - top) * value(m) / max, 2) : 0;
      return s('rect', { class: i === n - 1 ? 'bar now' : 'bar', x: i * step, y: base - tall, width: Math.max(step - gap, 1), height: tall },
        s('title', {}, `${clock(new Date(m.at)).slice(0, 5)}: ${text(value(m))}`));
    });
    const who = [];
    let run = null;
    minutes.forEach((m, i) => {
      const name = Object.entries(m.by).filter(([, c]) => value(c) > 0).sort((a, b) => value(b[1]) - value(a[1])).map(([k]) => k)[0] || '';
      if (run && name === run.name) run.to = i;
      else if (name) who.push(run = { name, from: i, to: i });
      else if (!name) run = null;
    });
    const runs = who.flatMap(r => {
      const a = r.from * step, b = (r.to + 1) * step - gap, fits = b - a > r.name.length * 7.5 + 8;
      return [s('line', { class: 'who', x1: a, x2: b, y1: base + 5, y2: base + 5 }, s('title', {}, `${r.name} shipped`)), fits ? s('text', { class: 'soft', x: (a + b) / 2, y: base + 20, 'text-anchor': 'middle' }, r.name) : null];
    }).filter(Boolean);
    svg.setAttribute('viewBox', `0 0 ${width} ${height + 8}`);
    svg.setAttribute('height', height + 8);
    svg.replaceChildren(s('line', { class: 'rule', x1: 0, y1: top, x2: width, y2: top }), s('line', { class: 'rule', x1: 0, y1: base, x2: width, y2: base }),
      s('text', { class: 'soft', x: 0, y: top - 5 }, text(max)), ...bars, ...runs,
      s('text', { class: 'soft', x: 0, y: height + 4 }, `${n - 1} min ago`), s('text', { class: 'soft', x: width, y: height + 4, 'text-anchor': 'end' }, 'now'));
  };

  // --- theme and size

  const themes = document.querySelectorAll('input[name=theme]');
  const setTheme = name => {
    if (name === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  };
  let kept = 'auto';
  try {
    kept = localStorage.getItem('theme') || 'auto';
  } catch { /* a browser may forbid it: then the choice lasts as long as the page */ }
  for (const e of themes) {
    e.checked = e.value === kept;
    e.addEventListener('change', () => {
      setTheme(e.value);
      try {
        localStorage.setItem('theme', e.value);
      } catch { /* as above */ }
    });
  }
  setTheme(kept);
  addEventListener('resize', () => {
    if (doc) show();
  });

  setInterval(tick, 1000);
  connect();
})();
