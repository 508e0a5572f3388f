() => {
  // What gradio leaves without a name gets that of the title it shows.
  const name = () => {
    for (const group of document.querySelectorAll("fieldset")) {
      const title = group.querySelector('[data-testid="block-info"]')?.textContent.trim();
      if (title && group.getAttribute("aria-label") !== title) group.setAttribute("aria-label", title);
      // Radio buttons of one name are one stop of the keyboard, with arrows within.
      for (const radio of group.querySelectorAll('input[type="radio"]')) {
        if (radio.name !== `egm ${title}`) radio.name = `egm ${title}`;
      }
    }
    const status = document.getElementById("egm-status");
    if (status && status.getAttribute("role") !== "status") {
      status.setAttribute("role", "status");
      status.setAttribute("aria-live", "polite");
    }
    for (const footer of document.querySelectorAll("footer")) footer.setAttribute("hidden", "");
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true, attributeFilter: ["name"] });
  name();
}
