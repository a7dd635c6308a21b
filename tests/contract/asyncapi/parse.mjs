// Parses the AsyncAPI document on standard input with the public parser, and prints one JSON object: the diagnostics, and
// what a reader of the document learns from it (every operation with its topic, its messages and their payloads).
import { readFileSync } from "node:fs";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf-8"));

const described = (message) => ({
  name: message.name(),
  contentType: message.contentType(),
  headers: message.headers()?.json(),
  key: message.bindings().get("kafka")?.value().key,
  payload: message.payload()?.json(),
});

console.log(
  JSON.stringify({
    diagnostics: diagnostics.map(({ severity, code, message, path }) => ({
      severity: DiagnosticSeverity[severity],
      code,
      message,
      path: path.join("."),
    })),
    operations: document?.operations().all().map((operation) => ({
      id: operation.id(),
      action: operation.action(),
      topics: operation.channels().all().map((channel) => channel.address()),
      messages: operation.messages().all().map(described),
    })),
  }),
);
