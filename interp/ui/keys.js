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

function list(dialog) {
  const body = dialog.querySelector("tbody")
  body.replaceChildren()
  const rows = [["/", "search"], ["?", "this list"], ["Esc", "close"]]
  for (const [name, target] of bound()) rows.push([name, target.textContent.trim() || target.title || target.ariaLabel || ""])
  for (const [name, meaning] of rows) {
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
  parentElement.querySelector(".open").onclick = () => list(dialog)
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close() }
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    if (event.composedPath()[0]?.matches?.(TYPING)) return
    if (event.key === "/") search()
    else if (event.key === "?") list(dialog)
    else {
      const target = bound().get(event.key)
      if (!target) return
      target.click()
    }
    event.preventDefault()
  }
  document.addEventListener("keydown", pressed)
  return () => document.removeEventListener("keydown", pressed)
}
