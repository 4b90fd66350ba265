// The API reference: openapi.json as a page. Everything is set as text, never as HTML.

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const ROOT = new URL(".", location.href).href; // the server's address, with its path prefix if it has one

/** An element of `tag`, or "tag.class", with texts and elements inside; what is empty is left out. */
function make(tag, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  made.className = classes.join(" ");
  made.append(...children.flat().filter(Boolean));
  return made;
}

function link(href, ...children) {
  return Object.assign(make("a", ...children), { href, rel: "noreferrer" });
}

/** The little Markdown that descriptions use: paragraphs, lists, `code` and links. */
function prose(text) {
  const inline = (line) => line.split(/(`[^`]+`|\[[^\]]+\]\(https?:[^)\s]+\))/).map((part) => {
    const [, words, href] = part.match(/^\[(.+)\]\((.+)\)$/) ?? [];
    if (href) return link(href, words);
    return part.startsWith("`") ? make("code", part.slice(1, -1)) : part;
  });
  return (text ?? "").split(/\n\s*\n/).filter((block) => block.trim()).flatMap((block) => {
    const [start, ...items] = block.split(/^\s*[-*] /m);
    const list = items.length ? make("ul.list", items.map((item) => make("li", inline(item)))) : null;
    return [start.trim() ? make("p", inline(start)) : null, list];
  });
}

// --- schemas ---

const nameOf = (node) => node.$ref?.split("/").at(-1);
const choicesOf = (schema) => schema.anyOf ?? schema.oneOf ?? [];
const isFile = (schema) => schema.format === "binary" || Boolean(schema.contentMediaType);

/** `node`, or what its $ref points to inside of `spec`. */
function follow(spec, node) {
  const unescaped = (key) => key.replaceAll("~1", "/").replaceAll("~0", "~");
  if (!node?.$ref?.startsWith("#/")) return node ?? {};
  return node.$ref.slice(2).split("/").reduce((place, key) => place?.[unescaped(key)], spec) ?? {};
}

/** A schema's type in a few words, such as `array of Prediction | null`. */
function typeOf(schema) {
  const { items, prefixItems, additionalProperties: rest } = schema;
  if (schema.$ref) return nameOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (choicesOf(schema).length) return choicesOf(schema).map(typeOf).join(" | ");
  if (schema.allOf) return schema.allOf.map(typeOf).join(" & ");
  if (prefixItems) return `[${prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `array of ${items ? typeOf(items) : "anything"}`;
  if (isFile(schema)) return "file";
  if (typeof rest === "object" && !schema.properties) return `object of ${typeOf(rest)}`;
  const type = [schema.type ?? "anything"].flat().join(" | ");
  return schema.format ? `${type} (${schema.format})` : type;
}

function limits(schema) {
  const { minLength, maxLength, minItems, maxItems, prefixItems, examples } = schema;
  const span = (low, high) => {
    if (low === undefined || high === undefined) return low === undefined ? high && `≤ ${high}` : `≥ ${low}`;
    return low === high ? low : `${low} to ${high}`;
  };
  const told = [
    ["≥", schema.minimum], [">", schema.exclusiveMinimum], ["≤", schema.maximum], ["<", schema.exclusiveMaximum],
    ["multiple of", schema.multipleOf],
    ["length", span(minLength, maxLength)],
    ["items", prefixItems ? undefined : span(minItems, maxItems)],
    ["pattern", schema.pattern],
    ["default", schema.default === null ? undefined : JSON.stringify(schema.default)],
    ["e.g.", typeof examples?.[0] === "object" ? undefined : examples?.[0]],
  ];
  const words = told.filter(([, value]) => value !== undefined).map(([name, value]) => `${name}\u00a0${value}`);
  return [...words, ...choicesOf(schema).flatMap(limits)];
}

/** One line of a list: a field, a parameter or a header, and what is inside of it. */
function named(name, schema, { required, place, description, inside }) {
  const facts = [place, required && "required", schema.deprecated && "deprecated", ...limits(schema)];
  const type = [make("code.name", name), " ", make("span.type", typeOf(schema)), " "];
  const about = make("span.quiet", facts.filter(Boolean).join(", "));
  return make("li", type, about, prose(description ?? schema.description), inside);
}

/** The fields of whatever objects a schema is made of, or null; `seen` ends schemas that hold themselves. */
function fields(spec, schema, seen = []) {
  if (schema.$ref) {
    return seen.includes(schema.$ref) ? null : fields(spec, follow(spec, schema), [...seen, schema.$ref]);
  }
  const own = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const inside = fields(spec, property, seen);
    return named(name, property, { required: schema.required?.includes(name), inside });
  });
  const parts = [
    ...choicesOf(schema), ...(schema.allOf ?? schema.prefixItems ?? []), schema.items, schema.additionalProperties,
  ];
  const nested = parts.filter((part) => typeof part === "object")
    .map((part) => [nameOf(part), fields(spec, part, seen)])
    .filter(([, inside]) => inside);
  const shown = nested.map(([name, inside]) => (
    nested.length > 1 && name ? make("div.choice", make("p.quiet", name), inside) : inside
  ));
  if (!own.length) return shown.length ? make("div", shown) : null;
  return make("div", make("ul.fields", own), shown);
}

// --- bodies ---

/** The examples of a media type, as [title, value]. */
function examplesOf(spec, { example, examples, schema }) {
  const several = Object.entries(examples ?? {});
  if (several.length) {
    return several.map(([name, each]) => [`Example: ${follow(spec, each).summary ?? name}`, follow(spec, each).value]);
  }
  const { example: own, examples: [first] = [] } = follow(spec, schema);
  const value = example ?? own ?? first;
  return value === undefined ? [] : [["Example", value]];
}

function content(spec, types) {
  return Object.entries(types ?? {}).map(([type, media]) => {
    const schema = media.schema ?? {};
    const figures = examplesOf(spec, media).map(([title, value]) => {
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
      return make("figure", make("figcaption.quiet", title), make("pre", make("code", text)));
    });
    const head = make("p", make("code", type), " ", make("span.type", typeOf(schema)));
    return make("div.media", head, prose(schema.description), fields(spec, schema), figures);
  });
}

function response(spec, status, node) {
  const { description, headers = {}, content: types } = follow(spec, node);
  const list = Object.entries(headers).map(([name, reference]) => {
    const header = follow(spec, reference);
    return named(name, header.schema ?? {}, { place: "header", ...header });
  });
  const inside = [list.length ? make("ul.fields", list) : null, ...content(spec, types)].filter(Boolean);
  const summary = make("summary", make(`code.status.s${status[0]}`, status), " ", description);
  const shown = make("details.response", summary,
    make("div.inside", inside.length ? inside : make("p.quiet", "No body is documented.")));
  shown.open = status.startsWith("2");
  return shown;
}

// --- operations ---

function operationsOf(spec) {
  return Object.entries(spec.paths ?? {}).flatMap(([path, item]) => (
    METHODS.filter((method) => item[method]).map((method) => {
      const node = item[method];
      const parameters = [...(item.parameters ?? []), ...(node.parameters ?? [])].map((each) => follow(spec, each));
      const id = node.operationId ?? `${method}${path.replaceAll(/\W+/g, "-")}`;
      const body = node.requestBody && follow(spec, node.requestBody);
      return { summary: id, ...node, id, method, path, parameters, body };
    })
  ));
}

/** A line for a shell that sends the operation's request, with the parameters that it cannot do without. */
function curl(spec, { method, path, parameters, body }) {
  const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const valueOf = ({ name, schema = {}, example }) => (
    String(example ?? schema.example ?? schema.examples?.[0] ?? schema.default ?? name.toUpperCase())
  );
  const needed = (place) => parameters.filter((each) => each.in === place && each.required);
  const words = needed("header").flatMap((each) => ["-H", `${each.name}: ${valueOf(each)}`]);
  const [[type, media] = []] = Object.entries(body?.content ?? {});
  if (method !== (type ? "post" : "get")) words.push("-X", method.toUpperCase());
  if (type?.startsWith("multipart/")) {
    const { properties = {}, required = [] } = follow(spec, media.schema);
    for (const name of required) {
      const schema = properties[name].items ?? properties[name];
      words.push("-F", `${name}=${isFile(schema) ? "@seven.png" : valueOf({ name, schema })}`);
    }
  } else if (type) {
    const json = JSON.stringify(examplesOf(spec, media)[0]?.[1] ?? {});
    words.push("-H", `Content-Type: ${type}`, "--data-binary", /\bjson$/.test(type) ? json : "@seven.png");
  }
  const route = needed("path").reduce((text, each) => (
    text.replace(`{${each.name}}`, encodeURIComponent(valueOf(each)))
  ), path.slice(1));
  const query = new URLSearchParams(needed("query").map((each) => [each.name, valueOf(each)]));
  return ["curl", ...words, `${ROOT}${route}${query.size ? `?${query}` : ""}`].map(quote).join(" ");
}

const badge = (method) => make(`span.method.${method}`, method.toUpperCase());

function article(spec, operation) {
  const { id, method, path, summary, description, parameters, body, responses = {} } = operation;
  const part = (title, ...inside) => [make("h3", title), ...inside];
  const list = parameters.map((each) => (
    named(each.name, each.schema ?? {}, { ...each, place: `in ${each.in}` })
  ));
  const needed = body?.required ? "Request body, required" : "Request body";
  const shown = make("article.card.operation", make("h2", link(`#${id}`, summary)),
    make("p.path", badge(method), " ", path), prose(description),
    list.length ? part("Parameters", make("ul.fields", list)) : null,
    body ? part(needed, make("div.inside", prose(body.description), content(spec, body.content))) : null,
    part("Try it", make("pre", make("code", curl(spec, operation)))),
    part("Responses", ...Object.entries(responses).map(([status, node]) => response(spec, status, node))));
  shown.id = id;
  return shown;
}

function contents(operations) {
  const groups = new Map();
  for (const each of operations) {
    const tag = each.tags?.[0] ?? "operations";
    groups.set(tag, [...(groups.get(tag) ?? []), make("li", link(`#${each.id}`, badge(each.method), each.path))]);
  }
  return [...groups].map(([tag, items]) => make("div", make("h2", tag), make("ul", items)));
}

async function show() {
  const main = document.getElementById("operations");
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const spec = await answer.json();
    const { title, version, summary, description } = spec.info;
    const operations = operationsOf(spec);
    main.append(make("div.about", make("h1", `${title} ${version}`), prose(summary), prose(description)));
    main.append(...operations.map((each) => article(spec, each)));
    document.getElementById("contents").append(...contents(operations));
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (error) {
    main.append(make("p.card.problem", `openapi.json could not be shown: ${error.message}`));
  }
  main.removeAttribute("aria-busy");
}

show();
