"use strict";

/* Keeps a running campaign's page up to date. Texts are set as text: they come from language models. */
(() => {
  const every = 1500; // milliseconds
  const share = 10; // an archive that takes long to answer is asked for no more than a tenth of the time
  const tiles = document.getElementById("tiles");
  const running = document.getElementById("running");
  const status = document.getElementById("status");

  const cell = (content, className) => {
    const made = document.createElement("td");
    made.append(content);
    if (className) made.className = className;
    return made;
  };

  const row = (trial) => {
    const made = document.createElement("tr");
    const link = document.createElement("a");
    link.href = trial.link;
    link.textContent = trial.name;
    made.append(cell(link), cell(String(trial.seed), "figure"), cell(trial.evaluator), cell(trial.worker), cell(trial.since));
    return made;
  };

  const show = (live) => {
    live.tiles.forEach((tile, i) => {
      const [, value, note] = tiles.children[i].children;
      value.textContent = tile.value;
      note.textContent = tile.note;
    });
    running.replaceChildren(...live.running.map(row));
    document.getElementById("idle").hidden = live.running.length > 0;
    for (const [id, figure] of Object.entries(live.charts)) charts.set(id, figure);
    document.getElementById("end").textContent = live.end.join(". ");
    status.textContent = live.status;
    status.className = `tag ${live.status === "running" || live.status === "finished" ? live.status : "plain"}`;
  };

  const look = async () => {
    const start = performance.now();
    if (!document.hidden) {
      try {
        const answer = await fetch(tiles.dataset.live);
        if (!answer.ok) throw new Error(answer.statusText);
        const live = await answer.json();
        show(live);
        if (!live.alive) return;
      } catch {
        status.textContent = "not reached";
        status.className = "tag failed";
      }
    }
    setTimeout(look, Math.max(every, share * (performance.now() - start)));
  };

  if (tiles.dataset.live) setTimeout(look, every);
})();
