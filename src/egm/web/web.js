() => {
  // What gradio leaves without a name gets that of the title it shows.
  const name = () => {
    for (const group of document.querySelectorAll("fieldset")) {
      const title = group.querySelector('[data-testid="block-info"]');
      if (title && !group.hasAttribute("aria-label")) group.setAttribute("aria-label", title.textContent.trim());
    }
    const status = document.getElementById("egm-status");
    if (status && status.getAttribute("role") !== "status") {
      status.setAttribute("role", "status");
      status.setAttribute("aria-live", "polite");
    }
    for (const footer of document.querySelectorAll("footer")) footer.setAttribute("hidden", "");
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
