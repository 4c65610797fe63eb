/**
 * Places for the nodes of a graph: springs along edges, repulsion between all, starting on a circle, so the
 * same graph always looks the same. Meant for a few hundred nodes; computed once per topology.
 *
 * @module
 */

const ROUNDS = 260;

/** `count` nodes and `edges` as pairs of indices → `[{x, y}]` within 0…1 both ways, the long side lying. */
export function layout(count, edges, { aspect = 1.6 } = {}) {
  const places = Array.from({ length: count }, (_, index) => {
    const angle = (2 * Math.PI * index) / count - Math.PI / 2;
    return { x: Math.cos(angle), y: Math.sin(angle) };
  });
  if (!hasRing(count, edges)) {
    if (count > 2) settle(places, edges);
    turn(places);
  }
  return fit(places, aspect);
}

/** Whether the edges go once around all nodes in their order: then the circle is the best drawing, chords and all. */
function hasRing(count, edges) {
  const pair = (a, b) => `${Math.min(a, b)} ${Math.max(a, b)}`;
  const known = new Set(edges.map(([a, b]) => pair(a, b)));
  return count > 2 && Array.from(
    { length: count },
    (_, node) => pair(node, (node + 1) % count),
  ).every((edge) => known.has(edge));
}

function settle(places, edges) {
  const count = places.length;
  const ideal = 2 / Math.sqrt(count);
  const moves = places.map(() => ({ x: 0, y: 0 }));
  for (let round = 0; round < ROUNDS; round += 1) {
    const heat = 0.25 * (1 - round / ROUNDS) ** 1.5;
    for (const move of moves) move.x = move.y = 0;
    for (let a = 0; a < count; a += 1) {
      for (let b = a + 1; b < count; b += 1) {
        const dx = places[a].x - places[b].x || 1e-4 * (a - b);
        const dy = places[a].y - places[b].y || 1e-4;
        const push = (ideal * ideal) / (dx * dx + dy * dy);
        moves[a].x += dx * push;
        moves[a].y += dy * push;
        moves[b].x -= dx * push;
        moves[b].y -= dy * push;
      }
    }
    for (const [a, b] of edges) {
      if (a === b) continue;
      const dx = places[a].x - places[b].x;
      const dy = places[a].y - places[b].y;
      const pull = Math.hypot(dx, dy) / ideal;
      moves[a].x -= dx * pull;
      moves[a].y -= dy * pull;
      moves[b].x += dx * pull;
      moves[b].y += dy * pull;
    }
    for (let node = 0; node < count; node += 1) {
      // A weak pull to the middle keeps separate parts on the page.
      moves[node].x -= places[node].x * 0.15;
      moves[node].y -= places[node].y * 0.15;
      const far = Math.hypot(moves[node].x, moves[node].y) || 1;
      const step = Math.min(far, heat);
      places[node].x += (moves[node].x / far) * step;
      places[node].y += (moves[node].y / far) * step;
    }
  }
}

/** Lay the longest direction across: the principal axis of the places becomes horizontal. */
function turn(places) {
  let xx = 0;
  let xy = 0;
  let yy = 0;
  for (const { x, y } of places) {
    xx += x * x;
    xy += x * y;
    yy += y * y;
  }
  if (Math.abs(xx - yy) + Math.abs(xy) < 0.12 * (xx + yy)) return; // round: as it is
  const angle = -0.5 * Math.atan2(2 * xy, xx - yy);
  const flip = places[0].x * Math.cos(angle) - places[0].y * Math.sin(angle) > 0 ? -1 : 1; // node 1 on the left
  for (const place of places) {
    const { x, y } = place;
    place.x = flip * (x * Math.cos(angle) - y * Math.sin(angle));
    place.y = x * Math.sin(angle) + y * Math.cos(angle);
  }
}

function fit(places, aspect) {
  const xs = places.map(({ x }) => x);
  const ys = places.map(({ y }) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const size = Math.max((right - left) / aspect, bottom - top) || 1;
  return places.map(({ x, y }) => ({
    x: 0.5 + (x - (left + right) / 2) / (size * aspect),
    y: 0.5 + (y - (top + bottom) / 2) / size,
  }));
}
