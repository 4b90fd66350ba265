// The API reference: openapi.json as a page. Everything is set as text, never as HTML.

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const ROOT = new URL(".", location.href).href; // the server's address, with its path prefix if it has one

/** An element of `tag`, or of "tag.class", with text and other elements inside; empty ones are left out. */
function make(tag, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  made.className = classes.join(" ");
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** The little Markdown that descriptions use: paragraphs, lists, `code` and links. */
function prose(text = "") {
  const inline = (line) => line.split(/(`[^`]+`|\[[^\]]+\]\(https?:[^)\s]+\))/).map((part) => {
    if (part.startsWith("`")) return make("code", part.slice(1, -1));
    const [, words, href] = part.match(/^\[(.+)\]\((https?:.+)\)$/) ?? [];
    return href ? Object.assign(make("a", words), { href, rel: "noreferrer" }) : part;
  });
  return text.split(/\n\s*\n/).filter((block) => block.trim()).map((block) => {
    const items = block.split(/^\s*[-*] /m);
    if (items.length === 1) return make("p", inline(block));
    return make("div", items[0].trim() && make("p", inline(items[0])), make("ul.list", items.slice(1).map((item) => make("li", inline(item)))));
  });
}

const json = (value) => JSON.stringify(value, null, 2);
const refName = (schema) => schema.$ref?.split("/").at(-1);
const follow = (spec, node) => {
  if (!node?.$ref?.startsWith("#/")) return node ?? {};
  return node.$ref.slice(2).split("/").reduce((place, key) => place?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], spec) ?? {};
};

/** A schema's type in a few words, such as `array of Prediction | null`. */
function typeOf(schema) {
  if (schema.$ref) return refName(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(typeOf).join(" | ");
  if (schema.allOf) return schema.allOf.map(typeOf).join(" & ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `array of ${schema.items ? typeOf(schema.items) : "anything"}`;
  if (isFile(schema)) return "file";
  if (typeof schema.additionalProperties === "object" && !schema.properties) return `object of ${typeOf(schema.additionalProperties)}`;
  const type = [schema.type ?? "anything"].flat().join(" | ");
  return schema.format ? `${type} (${schema.format})` : type;
}

const isFile = (schema) => schema.format === "binary" || Boolean(schema.contentMediaType);

function limits(schema) {
  const { prefixItems, minLength, maxLength, minItems, maxItems } = schema;
  const size = (noun, low, high) => (low === high ? [`${noun} =`, low] : [`${noun} ${low ?? 0} to`, high ?? "any"]);
  const sized = (noun, low, high) => (low ?? high) !== undefined && [size(noun, low, high)];
  const told = [
    ["≥", schema.minimum], [">", schema.exclusiveMinimum], ["≤", schema.maximum], ["<", schema.exclusiveMaximum],
    ["multiple of", schema.multipleOf], ["pattern", schema.pattern],
    ...(sized("length", minLength, maxLength) || []),
    ...(prefixItems ? [] : sized("items", minItems, maxItems) || []),
    ["default", schema.default === null ? undefined : JSON.stringify(schema.default)],
    ["e.g.", typeof schema.examples?.[0] === "object" ? undefined : schema.examples?.[0]],
  ].filter(([, value]) => value !== undefined).map(([words, value]) => `${words}\u00a0${value}`);
  return [...told, ...(schema.anyOf ?? schema.oneOf ?? []).flatMap(limits)];
}

/** One named value: a field, a parameter or a header. */
function named(name, schema, { required, place, description }, inside) {
  const facts = [place, required && "required", schema.deprecated && "deprecated", ...limits(schema)].filter(Boolean);
  return make("li", make("code.name", name), " ", make("span.type", typeOf(schema)), " ",
    make("span.quiet", facts.join(", ")), prose(description ?? schema.description), inside);
}

/** The fields of whatever objects a schema is made of; `seen` ends schemas that hold themselves. */
function fields(spec, schema, seen = []) {
  if (schema.$ref) {
    if (seen.includes(schema.$ref)) return null;
    return fields(spec, follow(spec, schema), [...seen, schema.$ref]);
  }
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf ?? schema.prefixItems ?? [];
  const nested = [...choices, schema.items, schema.additionalProperties].map((part) => (
    part && typeof part === "object" ? [refName(part), fields(spec, part, seen)] : []
  )).filter(([, inner]) => inner);
  const labelled = nested.map(([name, inner]) => (
    nested.length > 1 && name ? make("div.choice", make("p.quiet", name), inner) : inner
  ));
  const own = Object.entries(schema.properties ?? {}).map(([name, property]) =>
    named(name, property, { required: schema.required?.includes(name) }, fields(spec, property, seen)));
  const all = [own.length ? make("ul.fields", own) : null, ...labelled].filter(Boolean);
  return all.length ? make("div", all) : null;
}

/** What a media type's examples are, as [name, value]. */
function examples(spec, media) {
  if (media.example !== undefined) return [["Example", media.example]];
  const several = Object.entries(media.examples ?? {}).map(([name, example]) => [`Example: ${example.summary ?? name}`, follow(spec, example).value]);
  if (several.length) return several;
  const schema = follow(spec, media.schema);
  const value = schema.example ?? schema.examples?.[0];
  return value === undefined ? [] : [["Example", value]];
}

function content(spec, types = {}) {
  return Object.entries(types).map(([type, media]) => make("div.media",
    make("p", make("code", type), media.schema ? make("span.type", ` ${typeOf(media.schema)}`) : null),
    media.schema ? prose(media.schema.description) : null,
    media.schema ? fields(spec, media.schema) : null,
    examples(spec, media).map(([name, value]) => make("figure", make("figcaption.quiet", name), make("pre", make("code", typeof value === "string" ? value : json(value)))))));
}

function curl(spec, { method, path, parameters, body }) {
  const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const value = ({ name, schema = {}, example }) => String(example ?? schema.example ?? schema.examples?.[0] ?? schema.default ?? name.toUpperCase());
  const needed = (place) => parameters.filter((each) => each.in === place && each.required);
  let route = path.slice(1);
  for (const each of needed("path")) route = route.replace(`{${each.name}}`, encodeURIComponent(value(each)));
  const query = new URLSearchParams(needed("query").map((each) => [each.name, value(each)]));
  const words = ["curl", ...needed("header").flatMap((each) => ["-H", quote(`${each.name}: ${value(each)}`)])];
  const [[type, media] = []] = Object.entries(body?.content ?? {});
  if (type?.startsWith("multipart/")) {
    const { properties = {}, required = [] } = follow(spec, media.schema);
    for (const name of required) {
      const part = properties[name].items ?? properties[name];
      words.push("-F", quote(`${name}=${isFile(part) ? "@seven.png" : value({ name, schema: part })}`));
    }
  } else if (type === "application/json") words.push("-H", quote(`Content-Type: ${type}`), "-d", quote(JSON.stringify(examples(spec, media)[0]?.[1] ?? {})));
  else if (type) words.push("-H", quote(`Content-Type: ${type}`), "--data-binary", "@seven.png");
  const usual = type ? "post" : "get";
  if (method !== usual) words.push("-X", method.toUpperCase());
  return [...words, quote(`${ROOT}${route}${query.size ? `?${query}` : ""}`)].join(" ");
}

function response(spec, [status, node]) {
  const { description, headers = {}, content: types } = follow(spec, node);
  const shown = make("details.response", make("summary", make(`code.status.s${status[0]}`, status), " ", make("span", description)),
    make("div.inside", Object.keys(headers).length ? make("ul.fields", Object.entries(headers).map(([name, header]) =>
      named(name, follow(spec, header).schema ?? {}, { place: "header", ...follow(spec, header) }))) : null,
    content(spec, types), types || Object.keys(headers).length ? null : make("p.quiet", "No body is documented.")));
  shown.open = status.startsWith("2");
  return shown;
}

function operation(spec, { method, path, id, summary, description, parameters, body, responses }) {
  const link = Object.assign(make("a", summary), { href: `#${id}` });
  const part = (title, inside) => (inside ? [make("h3", title), inside] : []);
  const shown = make("article.card.operation", make("h2", link),
    make("p.path", make(`span.method.${method}`, method.toUpperCase()), " ", make("span", path)), prose(description),
    part("Parameters", parameters.length ? make("ul.fields", parameters.map((each) =>
      named(each.name, each.schema ?? {}, { required: each.required, place: `in ${each.in}`, description: each.description }))) : null),
    part(`Request body${body?.required ? ", required" : ""}`, body ? make("div.inside", prose(body.description), content(spec, body.content)) : null),
    part("Try it", make("pre", make("code", curl(spec, { method, path, parameters, body })))),
    part("Responses", make("div.responses", Object.entries(responses ?? {}).map((each) => response(spec, each)))));
  shown.id = id;
  return shown;
}

function operations(spec) {
  return Object.entries(spec.paths ?? {}).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => {
    const node = item[method];
    const parameters = [...(item.parameters ?? []), ...(node.parameters ?? [])].map((each) => follow(spec, each));
    const id = node.operationId ?? `${method}${path.replaceAll(/\W+/g, "-")}`;
    return { ...node, method, path, id, parameters, summary: node.summary ?? `${method.toUpperCase()} ${path}`, body: node.requestBody && follow(spec, node.requestBody) };
  }));
}

function contents(all) {
  const tags = Map.groupBy(all, (each) => each.tags?.[0] ?? "operations");
  return [...tags].map(([tag, those]) => make("div", make("h2", tag), make("ul", those.map(({ id, method, path }) =>
    make("li", Object.assign(make("a", make(`span.method.${method}`, method.toUpperCase()), " ", path), { href: `#${id}` }))))));
}

async function show() {
  const main = document.getElementById("operations");
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const spec = await answer.json();
    const all = operations(spec);
    main.append(make("div.about", make("h1", `${spec.info.title} ${spec.info.version}`), prose(spec.info.description)), ...all.map((each) => operation(spec, each)));
    document.getElementById("contents").append(...contents(all));
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (error) {
    main.append(make("p.card.problem", `openapi.json could not be shown: ${error.message}`));
  }
  main.removeAttribute("aria-busy");
}

show();
