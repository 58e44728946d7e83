"""What the index and the labels know of a feature that steering needs: its strength, its like, where it peaks."""

from collections.abc import Sequence
from dataclasses import replace

from interp.checkpoint.trained import NO, UNKNOWN
from interp.steering import Direction, Steerable, matched_features
from interp.steering.controls import MATCHED
from interp.steering.detection import FIFTHS, Detection, Peak
from interp.steering.detection import detection as detect
from interp.types import FeatureRef, InterpError, check_feature
from interp.workbench.opening import Opened


def steerable(
    wb: Opened, feature: int | FeatureRef | Direction, *, largest: float | None = None, words: str | None = None
) -> Steerable:
    """What the index knows of a feature that steering needs: strength, matched features, tokens at its peaks."""
    if isinstance(feature, Direction):
        return Steerable(feature=feature, largest=1.0 if largest is None else largest, words=words or "")
    own = own_feature(wb, feature)
    row = wb.index.row(own)
    others, (level, share) = matched(wb, own), clean_level(wb, own)
    if words is None:
        label = wb.labels.get(own)
        fired = list(dict.fromkeys(t.strip() for t in wb.index.text(row["top_tokens"]) if t.strip()))
        about = f"is about {label.text}" if label else f"uses the words {', '.join(fired[:5])}"
        words = f"The following text {about}." if label or fired else ""
    return Steerable(
        feature=own,
        largest=float(row["max"]) if largest is None else largest,
        matched=others,
        peaks=peaks(wb, [own, *others]),
        clean_level=level,
        clean_share=share,
        firings=wb.index.firings(own),
        fires=int(row["fires"]),
        all_firings=not wb.index.partial,
        words=words,
    )


def matched(wb: Opened, feature: int) -> tuple[int, ...]:
    """Features that fire about as often, fewer than `MATCHED` where the SAE has no more."""
    density = wb.index.features["density"].to_numpy()
    return matched_features(density, feature, min(MATCHED, int((density > 0).sum()) - 1))


def own_feature(wb: Opened, feature: int | FeatureRef) -> int:
    """The feature's number in the open SAE; InterpError when it has no such feature, or it is another SAE's."""
    if isinstance(feature, FeatureRef) and feature.sae != wb.card.name:
        raise InterpError(f"the index here is {wb.card.name}'s; open {feature.sae} to ask this of {feature}.")
    number = feature.feature if isinstance(feature, FeatureRef) else feature
    return check_feature(number, wb.sae.d_sae, wb.card.name)


def peaks(wb: Opened, features: Sequence[int]) -> dict[int, list[Peak]]:
    """Where the features' examples peak, strongest first, then by fifths of documents; of a feature that has a clean level,
    those above it. Examples whose text is not on this machine are left out."""
    wanted = ", ".join(str(int(f)) for f in features)
    rows = wb.index.sql(
        f"SELECT feature, band, rank, position, CAST(value AS FLOAT) AS value FROM {{examples}} WHERE feature IN ({wanted}) ORDER BY feature, band, rank"
    )
    rows = rows[rows["value"].to_numpy() > wb.index.clean_above[rows["feature"].to_numpy()]]
    position = rows["position"].to_numpy()
    where = wb.index.document_at[position]
    split, trained = (wb.index.documents[name].to_numpy()[where] for name in ("split", "trained_on"))
    # Where the index does not say what was trained on, splits do, if the training kept to its own.
    kept = (trained == NO) | ((trained == UNKNOWN) & (split != "train") & (wb.card.corpus.get("split") == "train"))
    documents = wb.index.features["documents"].to_numpy()
    peaks: dict[int, list[Peak]] = {int(f): [] for f in features}
    columns = (rows["feature"], rows["band"], rows["rank"], wb.index.tokens[position], kept, wb.index.missing[position])
    for feature, band, rank, token, reserved, missing in zip(*columns, strict=True):
        if missing:  # the text is not on this machine
            continue
        fifth = int(band) or (int(rank) - 1) * FIFTHS // int(documents[feature]) + 1
        peak = Peak(token=int(token), fifth=fifth, strongest=band == 0, reserved=bool(reserved))
        peaks[int(feature)].append(peak)
    return peaks


def detection(wb: Opened, feature: int) -> Detection:
    """How many of the feature's examples peak on a token that another's peaks on: strongest, and by fifths."""
    own = own_feature(wb, feature)
    found, vocabulary = peaks(wb, [own])[own], wb.index.vocabulary
    texts = {peak.token: vocabulary[peak.token] for peak in found}  # of a few tokens: all take a tenth of a second
    folded = {token: text.strip().lower() or text for token, text in texts.items()}
    level, share = clean_level(wb, own)
    return replace(detect(found, folded), clean_level=level, clean_share=share)


def clean_level(wb: Opened, feature: int) -> tuple[float | None, float]:
    """(the feature's clean level, the share of its firings above it); (None, 1) where it has none."""
    clean = wb.index.clean(feature)
    return (None, 1.0) if clean is None else (clean.level, clean.share)
