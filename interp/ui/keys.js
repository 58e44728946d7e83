// The keyboard: `/` goes to the page's search, `?` lists the keys, and any other key does what the element in a
// container with the key `on-KEY` does when it is clicked. Only text content is ever set, no HTML.

const TYPING = "input, textarea, select, [contenteditable='true'], [role='dialog'], [data-testid='stDataFrame'] canvas"
const SEARCH = "input[aria-label='Search'], textarea[aria-label='Search']"

function bound() {
  const found = new Map()
  for (const place of document.querySelectorAll("[class*='st-key-on-']")) {
    const name = [...place.classList].find((each) => each.startsWith("st-key-on-"))?.slice("st-key-on-".length)
    const target = place.querySelector("a, button:not(:disabled)")
    if (name && target && !found.has(name)) found.set(name, target)
  }
  return found
}

function search() {
  const field = document.querySelector(SEARCH)
  if (field) { field.focus(); field.select(); return }
  document.querySelector(".st-key-nav-features a")?.click() // a page without a search leads to the one that is all search
  let tries = 50
  const waiting = setInterval(() => {
    const there = document.querySelector(SEARCH)
    if (there) there.focus()
    if (there || --tries === 0) clearInterval(waiting)
  }, 100)
}

function rows() { // the features that the page lists, each a link; they stand in the sheets' own trees
  const sheets = [...document.querySelectorAll(".stMain *")].filter((each) => each.shadowRoot)
  return sheets.flatMap((each) => [...each.shadowRoot.querySelectorAll(".hit .name a, .card .name a")])
}

function step(by) {
  const there = rows()
  const at = there.findIndex((each) => each.getRootNode().activeElement === each)
  const next = there[at < 0 ? (by > 0 ? 0 : there.length - 1) : Math.min(Math.max(at + by, 0), there.length - 1)]
  next?.focus()
  next?.scrollIntoView({ block: "nearest" })
  return Boolean(next)
}

function list(dialog) {
  const body = dialog.querySelector("tbody")
  body.replaceChildren()
  const known = [["/", "search"], ["?", "this list"], ["Esc", "close"]]
  if (rows().length) known.push(["j, k", "next, previous in the list"], ["Enter", "open it"])
  for (const [name, target] of bound()) known.push([name, target.textContent.trim() || target.title || target.ariaLabel || ""])
  for (const [name, meaning] of known) {
    const row = body.insertRow()
    const key = document.createElement("kbd")
    key.textContent = name
    row.insertCell().append(key)
    row.insertCell().textContent = meaning
  }
  if (!dialog.open) dialog.showModal()
}

export default function ({ parentElement }) {
  const dialog = parentElement.querySelector("dialog")
  const open = parentElement.querySelector(".open")
  open.onclick = () => list(dialog)
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close() }
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    if (event.composedPath()[0]?.matches?.(TYPING)) return
    if (event.key === "/") search()
    else if (event.key === "?") list(dialog)
    else {
      const target = bound().get(event.key)
      const by = { j: 1, k: -1 }[event.key]
      if (target) target.click()
      else if (!by || !step(by)) return
    }
    event.preventDefault()
  }
  document.addEventListener("keydown", pressed)
  open.hidden = false
  document.querySelector(".st-key-bar a[aria-current='page']")?.scrollIntoView({ block: "nearest", inline: "nearest" })
  return () => document.removeEventListener("keydown", pressed)
}
