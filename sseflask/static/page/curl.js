const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The same request from a shell; of a token only the name of the variable that holds it. */
export async function curlOf(request, signedIn) {
  const parts = ["curl -N"];
  if (request.method !== "GET" && request.method !== "POST") parts.push(`-X ${request.method}`);
  const id = request.headers.get("Last-Event-ID");
  if (id) parts.push(`-H ${quoted(`Last-Event-ID: ${id}`)}`);
  if (signedIn) parts.push('-H "Authorization: Bearer $SSEFLASK_TOKEN"');
  const body = request.method === "GET" ? "" : await request.clone().text();
  if (body) parts.push(`-H 'Content-Type: application/json' -d ${quoted(body)}`);
  return [...parts, quoted(request.url)].join(" ");
}
