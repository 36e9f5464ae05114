// Where the page begins, and where an address leads.

// Open what a link leads into; a check that is nowhere else in the page is shown in its table.
async function follow(place) {
  const target = place && byId(place);
  for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  if (target) target.scrollIntoView();
  else if (place.startsWith("f-")) await explore.find(place);
}

async function route() {
  const { place, values } = address();
  if (place === "timeline" && timeline.traces) await timeline.restore(values);
  if (place === "explore") await explore.restore(values);
  await follow(place);
}

async function start() {
  const { place, values } = address();
  const none = new URLSearchParams();
  if (byId("data-traces")) {
    await timeline.start();
    await timeline.restore(place === "timeline" ? values : none);
  }
  await explore.start();
  await explore.restore(place === "explore" ? values : none);
  addEventListener("hashchange", route);
  await follow(place);
}

start().catch((error) => {
  for (const note of document.querySelectorAll(".not-started")) {
    note.hidden = false;
    note.textContent = `This part needs a newer browser (${error.message}); all of it is in the files beside the page.`;
  }
});
