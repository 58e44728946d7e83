"""Library: the checkpoints of the folders that these pages were given; each with its card, verified, exported; new ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp import jobs
from interp.commands.allowed import allowed_sae, allowed_source, given_folders, inside, new_folder, offered
from interp.commands.cards import archive_of, card_html
from interp.commands.finding import library
from interp.commands.sharing import LARGEST_UPLOAD, unpack_upload
from interp.render.sheet import element, join_html, rows_html
from interp.render.words import counted, size
from interp.types import InterpError
from interp.ui import work
from interp.ui.shared import bound, empty, link, plain, remember

if TYPE_CHECKING:
    from interp.library import Entry

EXPORTS = {
    "html": "pages that open without a server",
    "neuronpedia": "SAEDashboard's JSON, for Neuronpedia",
    "csv": "a table of features, CSV",
    "parquet": "a table of features, Parquet",
    "labels": "labels, JSON lines",
}
MIB = 2**20


# ---- the shelf ----


def shelf(entries: Sequence["Entry"], open_: str) -> None:
    """A card for each checkpoint."""
    with st.container(key="shelf"):
        for number, entry in enumerate(entries):
            book(entry, number, str(Path(entry.folder).resolve()) == open_)


def book(entry: "Entry", number: int, is_open: bool) -> None:
    """One checkpoint: its name opens it, its figures, whether it was verified; its card at a click."""
    folder = str(Path(entry.folder).resolve())
    with st.container(key=f"sae-{number}", border=True, gap="small"):
        link("features", plain(entry.name.rpartition("/")[2]), sae=folder)
        st.caption(
            f"{plain(entry.hook)} of {plain(entry.model)}  \n{plain(entry.architecture)} · {size(entry.mib * MIB)}"
        )
        st.html(figures(entry))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            verdict(entry.verified)
            if entry.indexed is None:
                st.badge("no index", color="gray", icon=":material/search_off:")
            if is_open:
                st.badge("shown below", color="primary", icon=":material/arrow_downward:")
            else:
                with st.container(key=f"more-{number}", width="content"):
                    link("library", "Card, verify, export", card=folder)


def figures(entry: "Entry") -> Any:
    """What was measured, side by side."""
    shown = [
        ("features", "–" if entry.features is None else f"{entry.features:,}"),
        ("L0", "–" if entry.l0 is None else f"{entry.l0:.1f}"),
        ("1 − FVU", "–" if entry.ev is None else f"{entry.ev:.3f}"),
        ("ΔCE, nats", "–" if entry.delta_ce is None else f"{entry.delta_ce:.3f}"),
        ("labels", f"{entry.labels:,}"),
        ("tokens indexed", "–" if entry.indexed is None else f"{entry.indexed:,}"),
    ]
    return element(
        "div",
        join_html(element("div", element("b", value), element("span", name)) for name, value in shown),
        kind="figures",
    )


def verdict(said: str) -> None:
    """Whether it was recomputed here, and when."""
    colour: Any = "green" if said.startswith("verified") else "red" if said.startswith("differs") else "gray"
    icon = ":material/verified:" if colour == "green" else ":material/error:" if colour == "red" else ":material/help:"
    st.badge(plain(said), color=colour, icon=icon)


# ---- one checkpoint ----


def opened(folder: str) -> None:
    """The card of one checkpoint, and what can be done with it."""
    sae = allowed_sae(folder)
    st.subheader(plain("/".join(Path(sae).parts[-2:])), anchor=False)
    card, verify, export = st.tabs(["Card", "Verify", "Export"])
    with card:
        st.caption(plain(sae))
        work.sheet(card_html(sae), "card")
    with verify:
        verifying(sae)
    with export:
        exporting(sae)


def verifying(sae: str) -> None:
    """Begin a verification; what the last one found, claim by claim."""
    st.caption(
        "Every file's hash is compared, and what the checkpoint claims is made anew: numbers, and blocks of its index."
    )
    note = f"verify-{sae}"
    if not work.closed("checkpoints are verified"):
        whole = st.checkbox("All of the index, not only blocks that are drawn", key=f"{note}-full")
        if st.button("Verify", icon=":material/verified:", key=f"{note}-go"):
            work.begin("verify", {"sae": sae, "full": whole}, note=note)
            st.rerun()
    work.watch(note, command="verify", sae=sae)
    job = newest("verify", sae)
    if job is not None:
        found: Any = job.result()
        st.markdown(f"**{plain(str(found['verdict']))}**, {work.since(job.ended or job.created)} ago")
        rows = [[claim["status"], claim["what"], claim["said"], claim["how"]] for claim in found["claims"]]
        work.sheet(rows_html(["", "claim", "as it says", "how"], rows, ["name", "", "", ""]), "claims")


def newest(command: str, sae: str) -> jobs.Job | None:
    """The last job of a command about an SAE that is done."""
    done = (job for job in jobs.jobs()[::-1] if job.command == command and job.state == "done")
    return next((job for job in done if job.arguments.get("sae") == sae), None)


def exporting(sae: str) -> None:
    """Features for other tools, and the whole as one file."""
    if work.closed("checkpoints are exported"):
        return
    note = f"export-{sae}"
    left, right = st.columns(2, gap="large")
    with left:
        to = st.selectbox("Features as", list(EXPORTS), format_func=lambda name: EXPORTS[name], key=f"{note}-to")
        query = st.text_input("Only those that a search finds", key=f"{note}-query", placeholder="all that fire")
        name = st.text_input("Into", f"exports/{Path(sae).name}-{to}", key=f"{note}-name-{to}")
        if st.button("Export", icon=":material/output:", key=f"{note}-go"):
            into = new_folder(name)
            work.begin("export", {"sae": sae, "into": str(into), "to": to, "query": query}, note=note)
            st.rerun()
        work.watch(note)
    with right:
        st.markdown("The whole checkpoint as one file, which `interp unpack` and the Library of another machine take.")
        labels = st.checkbox("With the labels that were written here", key=f"{note}-labels")
        if st.button("Pack", icon=":material/inventory_2:", key=f"{note}-pack"):
            into = new_folder(f"exports/{Path(sae).name}.interp.tar")
            work.begin("pack", {"sae": sae, "into": str(into), "labels": labels}, note=f"pack-{sae}")
            st.rerun()
        job = work.watch(f"pack-{sae}") or newest("pack", sae)
        if job is not None and job.state == "done":
            path, raw = archive_of(str(inside(str(job.arguments["into"]))))
            st.download_button(f"{path.name}, {size(len(raw))}", raw, path.name, "application/x-tar", on_click="ignore")


# ---- new ones ----


def bring() -> None:
    """An upload, a folder or archive that lies here, or one from elsewhere."""
    st.subheader("Bring one in", anchor=False)
    if work.closed("checkpoints are brought in"):
        return
    upload, folder, pull = st.tabs(["Upload an archive", "From a folder here", "From a hub or URL"])
    with upload:
        uploading()
    with folder:
        importing()
    with pull:
        pulling()
    job = work.watch("bring")
    if job is not None and job.state == "done":
        link("features", "Open it", sae=job.arguments["into"])


def uploading() -> None:
    """A file of `interp pack`, from the browser."""
    most = LARGEST_UPLOAD // MIB
    file = st.file_uploader(
        f"A file that `interp pack` wrote, {most} MiB at most", type="tar", key="bring-file", max_upload_size=most,
        help="Every name, size and hash in it is checked, and its folder appears only when all of it holds.",
    )  # fmt: skip
    if file is None:
        return
    name = st.text_input("Name", f"imported/{_stem(file.name)}", key="bring-file-name")
    if st.button("Check and unpack", type="primary", key="bring-file-go"):
        into = new_folder(name)
        with st.spinner("Checking every name, size and hash …"):
            done = unpack_upload(file, file.size, _stem(file.name), into)
        st.success(plain(f"{counted(len(done.files), 'file')}, {size(done.bytes)}, in {into}."))
        link("features", "Open it", sae=into)


def _stem(name: str) -> str:
    """A file's name as the name of a folder."""
    stem = Path(name).name.removesuffix(".tar").removesuffix(".interp")
    return "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "-" for c in stem).strip("-._+")[:80] or "sae"


def importing() -> None:
    """An archive, or a folder in any library's format, in the folders that the pages were given."""
    st.caption(plain(f"In {', '.join(map(str, given_folders()))}."))
    path = st.text_input("Folder or archive", key="bring-path", placeholder="downloads/their-sae")
    left, right = st.columns(2)
    model = left.text_input("Model", key="bring-model", placeholder="as its files say")
    hook = right.text_input("Hook point", key="bring-hook", placeholder="as its files say")
    name = st.text_input("Name", f"imported/{_stem(path) if path else 'sae'}", key=f"bring-path-name-{path}")
    if st.button("Import", type="primary", disabled=not path, key="bring-path-go"):
        source, into = inside(path), new_folder(name)
        if source.is_file() and source.suffix == ".tar":
            work.begin("unpack", {"archive": str(source), "into": str(into)}, note="bring")
        else:
            work.begin(
                "convert", {"source": str(source), "into": str(into), "model": model, "hook": hook}, note="bring"
            )
        st.rerun()


def pulling() -> None:
    """From the hub, a URL, or sae-lens' list."""
    source = st.text_input(
        "From",
        key="bring-pull",
        placeholder="hf:org/name",
        help="hf:org/name, https://…, s3://…, or RELEASE/ID of sae-lens' list.",
    )
    name = st.text_input("Name", f"pulled/{_stem(source) if source else 'sae'}", key=f"bring-pull-name-{source}")
    if st.button("Pull", type="primary", disabled=not source, key="bring-pull-go"):
        work.begin("pull", {"source": allowed_source(source), "into": str(new_folder(name))}, note="bring")
        st.rerun()


# ---- the page ----


def main() -> None:
    work.heading("Library", "Verified ones were recomputed on this machine.")
    try:
        root = bound(
            st.text_input, "Folder", "root", "", width=560, placeholder=", ".join(map(str, given_folders())),
            help="Every checkpoint below it is listed. It lies in the folders that `interp dashboard --folder` gave.",
        )  # fmt: skip
        entries = library(inside(root)) if root else offered()
        show(entries)
        bring()
    except InterpError as error:
        st.error(plain(str(error)), icon=":material/block:")


def show(entries: Sequence["Entry"]) -> None:
    """The shelf, what cannot be read, and the one that is opened."""
    readable = [entry for entry in entries if not entry.problem]
    st.markdown(f"**{counted(len(readable), 'checkpoint')}**")
    open_ = st.query_params.get("card", "")
    if readable:
        shelf(readable, open_)
    else:
        with empty("No checkpoint here", "Train one, or bring one in below."):
            link("train", "Train an SAE")
    for entry in entries:
        if entry.problem:
            st.warning(plain(entry.problem), icon=":material/warning:")
    if open_:
        remember(card=open_)
        opened(open_)


main()
