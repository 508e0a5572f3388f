const input = element.querySelector("input");
const said = element.querySelector(".said");

async function send(file) {
  said.textContent = `sending ${file.name} …`;
  try {
    const reply = await fetch("egm/pictures", {
      method: "POST", body: file, headers: { "X-File-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" },
    });
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) {
      said.textContent = told.error?.message || told.error || `not taken (${reply.status})`;
      return;
    }
    said.textContent = `asking about ${told.name}`;
    trigger("upload", { picture: told.picture });
  } catch {
    said.textContent = "the page's server does not answer";
  }
}

input.addEventListener("change", () => { if (input.files.length) send(input.files[0]); });
element.addEventListener("dragover", (event) => event.preventDefault());
element.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])].find((each) => each.type.startsWith("image/"));
  if (file && element.isConnected) send(file);
});
