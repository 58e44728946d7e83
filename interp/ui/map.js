// The map of features on a canvas: hover names, a click opens, a drag draws an outline, the wheel zooms.
// `data.drawn` is JSON of what commands.mapping.drawn_map gives; names are only ever set as text.

const TOPICS = ["#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#8a8a00", "#d55e00", "#009e73", "#8d5bb5"]
const STATUSES = {
  confirmed: "#009e73", "told from chance": "#56b4e9", proposed: "#e69f00", undecided: "#cc79a7", "too few": "#b59a6a",
  refuted: "#d55e00", withdrawn: "#8d5bb5",
}
const RAMP = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]] // viridis
const NEAR = 9, FEWEST = 8

function ramp(share, dark) {
  const at = (dark ? 0.18 + 0.82 * share : 0.9 * share) * (RAMP.length - 1)
  const low = Math.min(Math.floor(at), RAMP.length - 2), part = at - low
  return `rgb(${RAMP[low].map((c, i) => Math.round(c + part * (RAMP[low + 1][i] - c))).join(",")})`
}

function isDark(host) {
  const parts = getComputedStyle(host).getPropertyValue("color").match(/[\d.]+/g)
  return parts ? Number(parts[0]) + Number(parts[1]) + Number(parts[2]) > 380 : false // light letters
}

// A colour for every feature, and the legend: [colour, words] of classes, or the ends of a scale.
function coloured(map, by, dark) {
  const grey = dark ? "#5d5851" : "#c9c3b8"
  if (by === "effect" || by === "density") {
    const values = map[by].map((v) => (v > 0 ? Math.log10(v) : null))
    const known = values.filter((v) => v !== null).sort((a, b) => a - b)
    const low = known[Math.floor(0.02 * known.length)] ?? 0, high = known[Math.floor(0.98 * (known.length - 1))] ?? 1
    const share = (v) => Math.min(Math.max((v - low) / (high - low || 1), 0), 1)
    const words = (v) => `${(10 ** v).toPrecision(1)}${by === "effect" ? " nats" : ""}`
    return {
      of: values.map((v) => (v === null ? grey : ramp(share(v), dark))),
      scale: [0, 0.25, 0.5, 0.75, 1].map((s) => ramp(s, dark)), ends: [words(low), words(high)],
    }
  }
  const names = by === "status" ? map.statuses : map.topics
  const last = by === "status" ? "" : "mixed"
  const colours = names.map((name, i) => (by === "status" ? STATUSES[name] ?? grey : name === last ? grey : TOPICS[i % TOPICS.length]))
  return { of: map[by].map((i) => colours[i]), classes: names.map((name, i) => [colours[i], name]) }
}

function legend(host, found) {
  host.replaceChildren()
  const add = (parent, tag, text, className) => {
    const made = document.createElement(tag)
    if (text !== undefined) made.textContent = text
    if (className) made.className = className
    parent.append(made)
    return made
  }
  if (found.scale) {
    add(host, "span", found.ends[0])
    add(host, "i", undefined, "bar").style.background = `linear-gradient(to right, ${found.scale.join(",")})`
    add(host, "span", found.ends[1])
  } else for (const [colour, name] of found.classes) {
    const item = add(host, "span", undefined, "class")
    add(item, "i", undefined, "dot").style.background = colour
    add(item, "span", name)
  }
}

function draw(state) {
  const { canvas, map, view } = state, scale = devicePixelRatio || 1
  const width = canvas.clientWidth, height = canvas.clientHeight
  if (!map || !width) return
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale)
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale)
  const pen = canvas.getContext("2d"), dark = isDark(canvas)
  if (state.dark !== dark || state.drawnBy !== state.by || state.drawnOf !== map) {
    state.found = coloured(map, state.by, dark)
    Object.assign(state, { dark, drawnBy: state.by, drawnOf: map })
    legend(state.legend, state.found)
  }
  pen.setTransform(scale, 0, 0, scale, 0, 0)
  pen.clearRect(0, 0, width, height)
  place(state, width, height)
  const marked = state.marked, some = marked.size > 0
  const size = Math.min(1.5 * Math.sqrt(view.zoom) * Math.max(width, 420) / 620, 6)
  for (const pass of some ? [false, true] : [true]) {
    pen.globalAlpha = pass ? (some ? 1 : 0.85) : 0.22
    for (let i = 0; i < map.feature.length; i++) {
      if (some && marked.has(map.feature[i]) !== pass) continue
      const x = state.px[i], y = state.py[i]
      if (x < -5 || y < -5 || x > width + 5 || y > height + 5) continue
      pen.fillStyle = pass || !some ? state.found.of[i] : dark ? "#6b655d" : "#bdb6aa"
      const r = some && pass ? Math.max(size * 1.6, 2.8) : size
      pen.beginPath(); pen.arc(x, y, r, 0, 6.2832); pen.fill()
      if (some && pass) { pen.lineWidth = 0.7; pen.strokeStyle = dark ? "#ebe7e0" : "#1f1c18"; pen.stroke() }
    }
  }
  pen.globalAlpha = 1
  const ink = getComputedStyle(canvas).color
  if (state.over >= 0) ring(pen, state.px[state.over], state.py[state.over], size + 4, ink)
  if (state.outline.length > 1) {
    pen.strokeStyle = ink; pen.setLineDash([4, 3]); pen.lineWidth = 1.3
    pen.beginPath(); state.outline.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y))); pen.closePath(); pen.stroke()
    pen.setLineDash([])
  }
}

function ring(pen, x, y, r, ink) { pen.strokeStyle = ink; pen.lineWidth = 1.6; pen.beginPath(); pen.arc(x, y, r, 0, 6.2832); pen.stroke() }

// Pixels of every feature: the map keeps its shape and fills the smaller side.
function place(state, width, height) {
  const { map, view } = state, side = Math.min(width * 0.97, height * 0.97) * view.zoom
  const stretch = Math.min(Math.max(width / height, 1), 1.45) // a wide picture is used, a little stretched
  state.toX = (x) => width / 2 + (x / 10000 - 0.5 - view.x) * side * stretch
  state.toY = (y) => height / 2 - (y / 10000 - 0.5 - view.y) * side
  state.fromX = (px) => ((px - width / 2) / (side * stretch) + 0.5 + view.x) * 1000
  state.fromY = (py) => (-(py - height / 2) / side + 0.5 + view.y) * 1000
  state.unit = [side * stretch, side]
  state.px = map.x.map(state.toX)
  state.py = map.y.map(state.toY)
}

function nearest(state, x, y) {
  let best = -1, least = NEAR * NEAR
  for (let i = 0; i < state.px.length; i++) {
    if (state.marked.size && !state.marked.has(state.map.feature[i]) && !state.near) continue
    const away = (state.px[i] - x) ** 2 + (state.py[i] - y) ** 2
    if (away < least) { least = away; best = i }
  }
  return best
}

function tell(state, x, y) {
  const { tip, map, over } = state
  tip.hidden = over < 0
  if (over < 0) return
  const known = map.effect?.[over]
  const facts = [`feature ${map.feature[over]}`, map.topics[map.topic[over]], map.statuses[map.status[over]],
    `density ${map.density[over].toExponential(1)}`]
  if (known != null) facts.push(`effect ${known} nats`)
  tip.querySelector("b").textContent = map.name[over]
  tip.querySelector("span").textContent = facts.join(" · ")
  const width = state.canvas.clientWidth
  tip.style.left = `${Math.min(Math.max(x - 20, 4), Math.max(width - tip.offsetWidth - 4, 4))}px`
  tip.style.top = y + 20 + tip.offsetHeight > state.canvas.clientHeight ? `${y - tip.offsetHeight - 14}px` : `${y + 18}px`
}

// The outline with fewer corners: those dropped first that change it least.
function simple(outline, most) {
  const points = outline.slice()
  const area = (i) => {
    const [a, b, c] = [points[(i + points.length - 1) % points.length], points[i], points[(i + 1) % points.length]]
    return Math.abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]))
  }
  while (points.length > most) {
    let least = 0
    for (let i = 1; i < points.length; i++) if (area(i) < area(least)) least = i
    points.splice(least, 1)
  }
  return points
}

function listen(state) {
  const { canvas } = state
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top] }
  const look = (x, y) => { state.over = nearest(state, x, y); canvas.style.cursor = state.over < 0 ? "crosshair" : "pointer"; draw(state); tell(state, x, y) }
  canvas.onpointerdown = (event) => {
    if (event.button !== 0) return
    state.from = at(event); state.panning = event.shiftKey; state.outline = []
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId)
  }
  canvas.onpointermove = (event) => {
    const [x, y] = at(event)
    if (!state.from || event.pointerType !== "mouse") return look(x, y)
    if (state.panning) {
      state.view.x -= (x - state.from[0]) / state.unit[0]; state.view.y += (y - state.from[1]) / state.unit[1]
      state.from = [x, y]
    } else if (state.outline.length || Math.hypot(x - state.from[0], y - state.from[1]) > 5) {
      if (!state.outline.length) state.outline.push(state.from)
      state.outline.push([x, y]); state.tip.hidden = true
    }
    draw(state)
  }
  canvas.onpointerup = (event) => {
    const drawn = state.outline, from = state.from
    state.from = null; state.outline = []
    if (!from || state.panning) return
    if (drawn.length >= FEWEST) {
      const clip = (v) => Math.round(Math.min(Math.max(v, 0), 1000))
      const corners = simple(drawn, 20).map(([x, y]) => `${clip(state.fromX(x))},${clip(state.fromY(y))}`)
      state.send("outline", [...new Set(corners)].join(";"))
    } else {
      const [x, y] = at(event); look(x, y)
      const feature = state.over >= 0 ? state.map.feature[state.over] : null
      if (feature === null) return draw(state)
      if (event.ctrlKey || event.metaKey) window.open(`${state.base}${feature}`, "_blank", "noopener")
      else state.send("opened", feature)
    }
    draw(state)
  }
  canvas.onpointerleave = () => { state.over = -1; state.tip.hidden = true; draw(state) }
  canvas.onwheel = (event) => {
    event.preventDefault()
    const [x, y] = at(event), before = [state.fromX(x), state.fromY(y)]
    state.view.zoom = Math.min(Math.max(state.view.zoom * Math.exp(-event.deltaY / 300), 1), 40)
    if (state.view.zoom === 1) state.view.x = state.view.y = 0
    else {
      place(state, canvas.clientWidth, canvas.clientHeight)
      state.view.x += (before[0] - state.fromX(x)) / 1000; state.view.y += (before[1] - state.fromY(y)) / 1000
    }
    draw(state)
  }
  canvas.ondblclick = () => { Object.assign(state.view, { zoom: 1, x: 0, y: 0 }); draw(state) }
}

function colours(state) {
  for (const button of state.choices) {
    const by = button.dataset.by
    button.hidden = by === "effect" && !state.map.effect
    button.ariaPressed = String(by === state.by)
    button.onclick = () => { state.by = by; for (const each of state.choices) each.ariaPressed = String(each === button); draw(state); state.send("colour", by) }
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const $ = (selector) => parentElement.querySelector(selector)
  const host = $(".map")
  const state = (host.interp ??= { view: { zoom: 1, x: 0, y: 0 }, over: -1, outline: [], from: null, marked: new Set() })
  Object.assign(state, { canvas: $("canvas"), tip: $(".tip"), legend: $(".legend"), choices: host.querySelectorAll("button[data-by]"),
    base: data.base, send: setTriggerValue })
  if (state.text !== data.drawn) { state.text = data.drawn; state.map = JSON.parse(data.drawn) }
  state.by = state.map.effect || data.colour !== "effect" ? data.colour : "topic"
  state.marked = new Set(data.marked)
  state.canvas.setAttribute("aria-label", `Map of ${state.map.feature.length} features. ${data.alt}`)
  $(".how").textContent = state.map.how
  host.classList.toggle("small", Boolean(data.small))
  colours(state)
  listen(state)
  if (!state.watch) { state.watch = new ResizeObserver(() => draw(state)); state.watch.observe(state.canvas) }
  draw(state)
}
