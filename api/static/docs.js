SwaggerUIBundle({ url: "/schema/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
