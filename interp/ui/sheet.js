// A sheet: HTML that `render` made is shown, and what the pointer does in it is answered here or sent to Python.
// Text is only ever set as text; the HTML is the server's, in which every string was escaped.

const NARROW = 640
const STAYS = ["first", "against", "examples", "sign-positive"] // open on narrow pages too

function visible(token) {
  return token.replaceAll(" ", "·")
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = document.createElement("textarea") // where the page is not served from this machine or by TLS
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand("copy")
    area.remove()
  }
  const was = button.textContent
  button.textContent = "copied"
  setTimeout(() => { button.textContent = was }, 1200)
}

function number(place) { // which token of its row it is; a row has its text in short, in three parts, and whole
  const row = place.closest("[data-first]")
  const text = place.closest(".kwic, .whole, .line")
  return { row, at: text ? [...text.querySelectorAll("i")].indexOf(place) : -1 }
}

function point(root, tip, place, event) {
  const value = Number(place.dataset.v || 0)
  const { row, at } = number(place)
  const first = row?.dataset.first
  const ids = row?.dataset.ids?.split(",")
  const lines = [value ? `activation ${place.dataset.v}` : "silent"]
  if (at >= 0 && first !== undefined) lines.push(`position ${(Number(first) + at).toLocaleString("en")}`)
  if (at >= 0 && ids?.[at]) lines.push(`token id ${ids[at]}`)
  tip.replaceChildren()
  const strong = document.createElement("b")
  strong.textContent = visible(place.textContent)
  tip.append(strong, ` ${lines.join(" · ")}`)
  tip.hidden = false
  const box = root.getBoundingClientRect()
  const wide = tip.offsetWidth
  tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 10, box.width - wide - 4))}px`
  tip.style.top = `${event.clientY - box.top + 18}px`
  for (const plot of (place.closest(".one") ?? root).querySelectorAll("[data-name$='activation']")) {
    const line = plot.querySelector(".pointer")
    const [low, high] = [Number(plot.dataset.low), Number(plot.dataset.high)]
    if (!line) continue
    line.hidden = !value
    line.style.insetInlineStart = `${100 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1)}%`
  }
}

function unpoint(root, tip) {
  tip.hidden = true
  for (const line of root.querySelectorAll(".pointer")) line.hidden = true
}

function show(root, state) {
  for (const [name, value] of Object.entries(state)) root.dataset[name] = value
  for (const each of root.querySelectorAll("[data-set]")) {
    const [name, value] = each.dataset.set.split("=")
    each.setAttribute("aria-pressed", String((root.dataset[name] ?? "") === value))
  }
}

export default function (component) {
  const { parentElement, data, setTriggerValue } = component
  const root = parentElement.querySelector(".sheet")
  if (root.shown !== data.html) {
    const opened = new Map([...root.querySelectorAll("[data-fold]")].map((each) => [each.dataset.fold, each.open]))
    const same = root.about === data.about
    root.innerHTML = data.html
    root.shown = data.html
    const narrow = root.clientWidth < NARROW
    for (const each of root.querySelectorAll("[data-fold]")) {
      if (opened.has(each.dataset.fold)) each.open = opened.get(each.dataset.fold)
      else if (narrow && !STAYS.includes(each.dataset.fold)) each.open = false
    }
    const tip = document.createElement("div")
    tip.className = "tip"
    tip.hidden = true
    root.append(tip)
    root.tip = tip
    if (root.about !== undefined && !same) document.querySelector("[data-testid='stMain']")?.scrollTo(0, 0)
    root.about = data.about
  }
  show(root, data.state)
  root.onclick = (event) => {
    const link = event.target.closest("[data-go]")
    if (link) {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return // another tab is the browser's
      event.preventDefault()
      setTriggerValue("go", link.getAttribute("href"))
      return
    }
    const button = event.target.closest("[data-copy], [data-set], [data-again]")
    if (!button) return
    event.preventDefault()
    if (button.dataset.copy !== undefined) {
      const text = button.dataset.copy
      copy(button, text.startsWith("/") && button.dataset.address !== undefined ? location.origin + text : text)
    } else if (button.dataset.again !== undefined) {
      button.textContent = "running …"
      setTriggerValue("again", button.dataset.again)
    } else {
      const [name, asked] = button.dataset.set.split("=")
      const value = button.dataset.toggles !== undefined && root.dataset[name] === asked ? "" : asked // a second click takes it back
      show(root, { [name]: value })
      setTriggerValue("set", { [name]: value })
    }
  }
  root.onpointermove = (event) => {
    const place = event.target.closest?.("i")
    if (place && !place.closest(".interval")) point(root, root.tip, place, event)
    else unpoint(root, root.tip)
  }
  root.onpointerleave = () => unpoint(root, root.tip)
}
