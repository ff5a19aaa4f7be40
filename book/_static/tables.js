// A table that is wider than its place scrolls; keys must reach it, and no other.
document.addEventListener("DOMContentLoaded", () => {
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
  });
  document.querySelectorAll(".bd-article table").forEach((table) => sizes.observe(table));
});
