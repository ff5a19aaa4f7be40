// On a map of claims: show what the claim under the pointer or the focus leans on, and what leans on it.
for (const map of document.querySelectorAll(".claim-map svg")) {
  const uses = [...map.querySelectorAll(".use")];
  const claims = new Map([...map.querySelectorAll(".claim")].map((a) => [a.dataset.claim, a]));

  const follow = (id, from, to, name) => {
    for (const arrow of uses) {
      if (arrow.dataset[from] !== id || arrow.classList.contains(name)) continue;
      arrow.classList.add(name);
      claims.get(arrow.dataset[to]).classList.add(name);
      follow(arrow.dataset[to], from, to, name);
    }
  };
  const light = (event) => {
    const id = event.target.closest(".claim")?.dataset.claim;
    map.querySelectorAll(".above, .below").forEach((e) => e.classList.remove("above", "below"));
    map.classList.toggle("lit", Boolean(id));
    if (!id) return;
    follow(id, "user", "used", "above");
    follow(id, "used", "user", "below");
  };
  const dark = () => light({ target: map });
  map.addEventListener("mouseover", light);
  map.addEventListener("mouseleave", dark);
  map.addEventListener("focusin", light);
  map.addEventListener("focusout", dark);
}
