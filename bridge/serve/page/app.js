'use strict';
// The live feed. Everything received is written with textContent: nothing is ever parsed as HTML.

const MOST_ROWS = 500;
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

// ids are "<milliseconds>-<n>" and compared as numbers.
function laterId(a, b) {
  const [am, an] = a.split('-').map(Number);
  const [bm, bn] = b.split('-').map(Number);
  return am !== bm ? am > bm : an > bn;
}

// Feed keeps one row for each key, the newest first.
class Feed {
  constructor(name, key, cells) {
    this.body = byId(name);
    this.count = byId(name + '-count');
    this.empty = byId(name + '-empty');
    this.key = key;
    this.cells = cells;
    this.rows = new Map();
  }

  add(message) {
    if (!message.id || !message.payload) return;
    const key = this.key(message);
    const before = this.rows.get(key);
    if (before && !laterId(message.id, before.dataset.id)) return;
    if (before) before.remove();
    const row = document.createElement('tr');
    row.dataset.id = message.id;
    row.append(...this.cells(message, message.payload));
    let next = this.body.firstElementChild;
    while (next && laterId(next.dataset.id, message.id)) next = next.nextElementSibling;
    this.body.insertBefore(row, next);
    this.rows.set(key, row);
    row.dataset.key = key;
    while (this.body.childElementCount > MOST_ROWS) {
      this.rows.delete(this.body.lastElementChild.dataset.key);
      this.body.lastElementChild.remove();
    }
    this.count.textContent = String(this.rows.size);
    this.empty.hidden = true;
  }

  clear() {
    this.body.replaceChildren();
    this.rows.clear();
    this.count.textContent = '0';
    this.empty.hidden = false;
  }
}

function timeCell(message) {
  const at = new Date(message.timestamp);
  const cell = element('td', Number.isNaN(at.getTime()) ? '' : at.toLocaleString(), 'time');
  cell.title = message.timestamp || '';
  return cell;
}

function severityCell(severity) {
  const known = ['critical', 'high', 'medium', 'low', 'info'];
  return element('td', severity || '', known.includes(severity) ? 'severity ' + severity : 'severity');
}

function value(text, known, className) {
  if (known === false) return element('span', 'unknown', 'unknown');
  if (text === '') return element('span', 'none', 'unknown');
  return element('span', text, className);
}

function changeCell(p) {
  const cell = element('td', undefined, 'mono');
  if (!p.attribute && !p.change) return cell;
  const c = p.change || {};
  cell.append(value(p.old_value, c.old_known, 'old'), ' → ', value(p.new_value, c.new_known, 'new'));
  return cell;
}

const drifts = new Feed('drifts', (m) => m.payload.drift_id || m.id, (m, p) => {
  const address = element('td', p.address || p.resource_type + ' ' + p.resource_id, 'mono');
  address.title = p.resource_id || '';
  const verdict = element('td', p.verdict || '');
  if (p.precision) verdict.append(element('span', p.precision, 'tag'));
  return [timeCell(m), severityCell(p.severity), address, element('td', p.attribute || '', 'mono'),
    changeCell(p), element('td', p.user || ''), verdict];
});

function what(m, p) {
  if (m.type === 'falco') return [p.rule, p.output, p.hostname];
  if (m.type === 'state_change') return [(p.action || '') + ' ' + (p.resource || ''), p.state + ' serial ' + p.serial, ''];
  const event = p.event || {};
  const details = [p.address, event.error].filter(Boolean).join(' ');
  return [(event.name || '') + ' ' + (p.verdict || ''), details, p.user];
}

const events = new Feed('events', (m) => m.id, (m, p) => {
  const [title, details, who] = what(m, p);
  return [timeCell(m), element('td', m.type), severityCell(p.severity), element('td', title || ''),
    element('td', details || '', 'mono'), element('td', who || '')];
});

function showStats(p) {
  const shown = [['Open drifts', p.open_drifts], ['States', p.states], ['Resources', p.resources],
    ['Alerts', p.alerts], ['Pending', p.pending], ['Clients', p.clients]];
  byId('stats').replaceChildren(...shown.map(([name, n]) => {
    const pair = document.createElement('div');
    pair.append(element('dt', name), element('dd', String(n)));
    return pair;
  }));
}

function status(state, text) {
  byId('status').dataset.state = state;
  byId('status').textContent = text;
}

function show(m) {
  if (m.replayed) byId('demo').hidden = false;
  if (m.type === 'drift') drifts.add(m);
  else if (m.type === 'falco' || m.type === 'event' || m.type === 'state_change') events.add(m);
  else if (m.type === 'stats') showStats(m.payload);
}

// What was before the subscription comes by REST, what is from then on by WebSocket; where both have it, ids tell.
async function earlier() {
  for (const name of ['drifts', 'events']) {
    const answer = await fetch('/api/v1/' + name + '?limit=100');
    if (!answer.ok) throw new Error(name + ': ' + answer.status);
    (await answer.json()).items.forEach(show);
  }
}

let epoch = '';
let last = ''; // the place in the feed: a connection that was cut goes on behind it
let listed = false; // what was before the first subscription has been asked for
let attempts = 0;

function receive(socket, m) {
  switch (m.type) {
    case 'welcome':
      if (epoch && epoch !== m.payload.epoch) { drifts.clear(); events.clear(); last = ''; listed = false; }
      epoch = m.payload.epoch;
      last = last || m.payload.cursor;
      socket.send(JSON.stringify({type: 'subscribe', topic: 'all', payload: {since: last, epoch}}));
      break;
    case 'subscribed':
      attempts = 0;
      status('open', 'Live');
      if (listed) return; // what came in between follows by itself
      earlier().then(() => { listed = true; }).catch((e) => status('open', 'Live, without earlier messages (' + e.message + ')'));
      return;
    case 'gap':
      byId('gap').textContent = m.payload.reason === 'retention' ?
        'Some messages are missing here: they are no longer kept.' :
        'The bridge has another journal now: what it keeps follows, what the earlier one had is not known.';
      byId('gap').hidden = false;
      return;
  }
  if (m.id) last = m.id;
  show(m);
}

function connect() {
  const socket = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + '/ws');
  socket.onmessage = (event) => receive(socket, JSON.parse(event.data));
  socket.onclose = () => {
    const wait = Math.min(1000 * 2 ** attempts, 30000) * (0.75 + Math.random() / 2);
    attempts++;
    status('closed', 'Disconnected, trying again in ' + Math.ceil(wait / 1000) + ' s');
    setTimeout(connect, wait);
  };
}

connect();
