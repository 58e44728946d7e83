// Figures that `render/sheet.py` made, in which every string was escaped; a link to a section scrolls to it.

export default function (component) {
  const { parentElement, data } = component
  const root = parentElement.querySelector(".root")
  if (root.shown !== data.html) {
    root.innerHTML = data.html
    root.shown = data.html
  }
  root.onclick = (event) => {
    const link = event.target.closest("a[href^='#']")
    if (!link) return
    event.preventDefault()
    for (const each of root.querySelectorAll("[id]")) {
      if (`#${each.id}` === link.getAttribute("href")) each.scrollIntoView({ behavior: "smooth" })
    }
  }
}
