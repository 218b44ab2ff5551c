"""How the page looks, and how a word shows where the model looked."""

from imgcap.pictures.attention import OPAQUE, RAMP

_SCALE = ", ".join(
    f"rgb({r:.0f} {g:.0f} {b:.0f} / {OPAQUE * n / (len(RAMP) - 1):.2f})" for n, (r, g, b) in enumerate(RAMP)
)
CSS = """
.gradio-container { max-width: 1440px !important; margin: 0 auto !important; width: 100%; }
.gradio-container .html-container { padding: 0; }
.title h1 { font-size: 1.7rem; font-weight: 650; margin: 0.4rem 0 0.1rem; }
.title p, .hint, .empty { color: var(--body-text-color-subdued); }
.hint { font-size: 0.8rem; margin: -0.4rem 0 0; }
.empty {
  display: grid; place-items: center; min-height: 18rem; border-radius: 14px;
  border: 1.5px dashed var(--border-color-primary);
}
#method .wrap { display: grid; grid-template-columns: 1fr 1fr; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.2rem, 1fr)); gap: 0.5rem; }
.examples button { aspect-ratio: 1; border-radius: 9px; overflow: hidden; cursor: pointer; }
.examples img { width: 100%; height: 100%; object-fit: cover; display: block; }
.examples button:hover, .examples button:focus-visible { outline: 2px solid var(--color-accent); }

.cards { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); }
.card {
  --ratio: calc(var(--shape)); padding: 1.1rem 1.25rem 1.25rem; border-radius: 14px; min-width: 0;
  background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
}
.card header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.2rem 0.75rem; margin-bottom: 0.8rem; }
.card:only-child { max-width: 52rem; }
.card h2 { font-size: 1.05rem; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
.card header span, .score { font-size: 0.8rem; color: var(--body-text-color-subdued); }

.picture {
  position: relative; overflow: hidden; border-radius: 9px; margin: 0 auto;
  width: min(100%, 29rem * var(--ratio)); aspect-ratio: var(--shape);
}
.picture::before, .heat { content: ""; position: absolute; inset: 0; background: var(--picture) 0 0 / 100% 100%; }
.looking .picture::before { background-image: var(--pale); }
.heat { background-image: none; }
.scale { display: flex; align-items: center; gap: 0.5em; margin: 0.5rem 0 0; }
.scale { font-size: 0.8rem; color: var(--body-text-color-subdued); }
.scale i { width: 6em; height: 0.9em; background: linear-gradient(to right, SCALE), #c8c8c8; }

.best, .others li { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
.best { margin-top: 1rem; }
.caption { font-size: 1.45rem; line-height: 1.45; margin: 0; flex: 1; }
.tokens { margin: 0.3rem 0 0; }
.word { border-radius: 6px; padding: 0 0.16em; margin: 0 -0.16em; cursor: pointer; }
.word:hover, .word:focus-visible { background: rgb(255 190 40 / 0.35); outline: none; }
.word[aria-pressed="true"] { background: rgb(255 190 40 / 0.6); }
.score { font-variant-numeric: tabular-nums; }
.others { margin: 0.8rem 0 0; padding: 0.5rem 0 0; border-top: 1px solid var(--border-color-primary); }
.others li { padding: 0.2rem 0; }
.others li > :first-child { flex: 1; }
.refused { padding: 0.9rem 1.1rem; border-radius: 10px; border: 1px solid #d9822b66; background: #d9822b1f; margin: 0; }
""".replace("SCALE", _SCALE)

# A word under the pointer or the keyboard's focus shows its heat on the picture; a click keeps it there.
LOOK = """
const show = (card, word) => {
  card.querySelector(".heat").style.backgroundImage = word ? `url(${word.dataset.heat})` : "";
  card.classList.toggle("looking", Boolean(word));
};
const pinned = (card) => card.querySelector('.word[aria-pressed="true"]');
const onWord = (act) => (event) => {
  const word = event.target.closest(".word");
  if (word) act(word.closest(".card"), word);
};
const look = onWord(show);
const leave = onWord((card) => show(card, pinned(card)));
const pin = onWord((card, word) => {
  const before = pinned(card);
  before?.setAttribute("aria-pressed", "false");
  if (before !== word) word.setAttribute("aria-pressed", "true");
  show(card, pinned(card));
});
for (const name of ["pointerover", "focusin"]) element.addEventListener(name, look);
for (const name of ["pointerout", "focusout"]) element.addEventListener(name, leave);
element.addEventListener("click", pin);
watch("value", () => element.querySelectorAll(".card:has(.heat)").forEach((card) => show(card, pinned(card))));
"""

# A thumbnail that is clicked says its number.
CHOOSE = """
element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("select", { index: Number(chosen.value) });
});
"""
