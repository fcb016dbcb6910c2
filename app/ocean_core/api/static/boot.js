// Starts the viewer on the description that lies beside this page, whatever the box is called.
"use strict";

// What most people come for stands first; the rest stays as the description has it.
const FIRST = ["/telemetry/ingest", "/telemetry/batch"];
const rank = (operation) => {
  const place = FIRST.findIndex((end) => operation.get("path").endsWith(end));
  return place < 0 ? FIRST.length : place;
};

SwaggerUIBundle({
  url: new URL("../openapi.json", location.href).href,
  dom_id: "#viewer",
  layout: "BaseLayout",
  // Keys live as long as the page does.
  persistAuthorization: false,
  // Nobody can send somebody a link that shows another description here.
  queryConfigEnabled: false,
  // Nothing is asked of other machines.
  validatorUrl: null,
  deepLinking: true,
  operationsSorter: (a, b) => rank(a) - rank(b),
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  onComplete: () => {
    document.documentElement.dataset.state = "ready";
  },
});
