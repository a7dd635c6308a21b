// Parses the AsyncAPI documents on standard input (a JSON object of them, by name) with the public parser. Prints, under
// the same names, the diagnostics and what a reader learns: every operation with its topics, messages and payloads.
import { readFileSync } from "node:fs";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

const parser = new Parser();

const describedMessage = (message) => ({
  name: message.name(),
  contentType: message.contentType(),
  headers: message.headers()?.json(),
  key: message.bindings().get("kafka")?.value().key,
  payload: message.payload()?.json(),
});

const describedOperation = (operation) => ({
  action: operation.action(),
  topics: operation.channels().all().map((channel) => channel.address()),
  messages: operation.messages().all().map(describedMessage),
});

const describedDiagnostic = ({ severity, code, message, path }) => ({
  severity: DiagnosticSeverity[severity],
  code,
  message,
  path: path.join("."),
});

const found = {};
for (const [name, source] of Object.entries(JSON.parse(readFileSync(0, "utf-8")))) {
  const { document, diagnostics } = await parser.parse(source);
  found[name] = {
    diagnostics: diagnostics.map(describedDiagnostic),
    operations: document?.operations().all().map(describedOperation),
  };
}
console.log(JSON.stringify(found));
