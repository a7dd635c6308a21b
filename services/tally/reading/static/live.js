// Live numbers: replaces the counts that the server wrote with newer ones as they come. The page is complete without it.
"use strict";

(() => {
  const main = document.querySelector("[data-live]");
  if (!main || !window.EventSource) return;

  const exact = new Intl.NumberFormat("en-US"); // 111,236, the server's format
  const grouped = (number) => exact.format(number);
  const word = (number) => (number === 1 ? "supporter" : "supporters");
  const versions = new Map();

  const find = (name, value) => main.querySelectorAll(value === undefined ? `[${name}]` : `[${name}="${CSS.escape(value)}"]`);
  const write = (elements, text) => elements.forEach((element) => { element.textContent = text; });

  // A higher epoch is newer than all revisions of lower ones; within an epoch, the higher revision is newer.
  const older = (a, b) => (a.epoch !== b.epoch ? a.epoch < b.epoch : a.revision < b.revision);

  function showCount({ petition_id: petition, count, revision, epoch = 0 }) {
    const version = { epoch, revision };
    const known = versions.get(petition);
    if (known && older(version, known)) return;
    versions.set(petition, version);
    // The page may show the age of its counts. The stream begins with the same ones; later ones are new.
    if (known ? older(known, version) : [...find("data-count", petition)].some((one) => one.textContent === "–")) {
      main.querySelectorAll("[data-age]").forEach((age) => age.remove());
    }
    write(find("data-count", petition), grouped(count));
    write(find("data-word", petition), word(count));
    find("data-milestones").forEach((element) => showMilestone(element, count));
  }

  function showMilestone(element, count) {
    const milestones = element.dataset.milestones.split(",").map(Number);
    const next = milestones.find((threshold) => threshold > count);
    const bar = element.querySelector("progress");
    bar.max = next ?? 1;
    bar.value = next ? count : 1;
    write(element.querySelectorAll("[data-testid=next-milestone]"), next
      ? `${grouped(next - count)} more to reach ${grouped(next)}`
      : `All milestones reached, the last one at ${grouped(milestones.at(-1))}`);
  }

  function showSupporters(supporters) {
    write(find("data-supporters"), grouped(supporters));
    write(find("data-word-supporters"), `${word(supporters)} in all`);
  }

  let source = null;
  let timer = null;

  function open() {
    clearTimeout(timer);
    if (source || document.hidden) return;
    source = new EventSource(main.dataset.live);
    source.addEventListener("tally", (event) => {
      const update = JSON.parse(event.data);
      showCount(update);
      if (update.supporters !== undefined) showSupporters(update.supporters);
    });
    source.addEventListener("organisation", (event) => {
      const whole = JSON.parse(event.data);
      whole.petitions.forEach(showCount);
      showSupporters(whole.supporters);
    });
    source.addEventListener("error", () => {
      // The browser itself reconnects a lost connection, but not a refused one (503). Delays are random, against a rush.
      if (source?.readyState === EventSource.CLOSED) {
        close();
        timer = setTimeout(open, 15_000 + Math.random() * 30_000);
      }
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  // A hidden tab releases its stream, and gets the newest count when it is shown again.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
