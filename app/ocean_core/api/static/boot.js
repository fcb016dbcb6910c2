// Starts the viewer on the description that lies beside this page, whatever the box is called.
"use strict";
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
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  onComplete: () => {
    document.documentElement.dataset.state = "ready";
  },
});
