"use strict";

/* Draws each chart whose data the page carries, in the page's own colours, and again when those change. */
const charts = (() => {
  const figures = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const themed = (layout) => {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    return {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--text") },
      colorway: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => colour(`--series-${n}`)),
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...layout.legend },
      margin: { l: 56, r: 12, t: 8, b: 44, ...layout.margin },
      hovermode: "closest",
      uirevision: "kept",
    };
  };

  const draw = (id) => {
    const figure = figures.get(id);
    const node = document.getElementById(id);
    const layout = themed(figure.layout);
    if (figure.data.length === 0) {
      layout.xaxis.visible = layout.yaxis.visible = false;
      layout.annotations = [{ text: "nothing yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
    }
    return Plotly.react(node, figure.data, layout, { displayModeBar: false, responsive: true });
  };

  const set = async (id, figure) => {
    const isNew = !figures.has(id);
    figures.set(id, figure);
    await draw(id);
    if (isNew) {
      document.getElementById(id).on("plotly_click", (event) => {
        const to = event.points[0].customdata;
        if (typeof to === "string" && to.startsWith("/candidate/")) location.assign(to);
      });
    }
  };

  const again = () => figures.forEach((_, id) => draw(id));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  for (const data of document.querySelectorAll("script[data-for]")) set(data.dataset.for, JSON.parse(data.textContent));
  return { set };
})();
