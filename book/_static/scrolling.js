// What is wider or higher than its place scrolls; keys must reach it, also once a dropdown opens.
document.addEventListener("DOMContentLoaded", () => {
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight)
        target.tabIndex = 0;
      else target.removeAttribute("tabindex");
  });
  document
    .querySelectorAll(".bd-article :is(table, pre, .cell_output > .output)")
    .forEach((part) => sizes.observe(part));
});
