/** Markdown as models write it, as elements: text never becomes markup by itself. */
export function markdown(text) {
  const made = document.createDocumentFragment();
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const fence = /^\s*(```|~~~)/.exec(line);
    const list = /^\s*([-*+]|\d+[.)])\s+/.exec(line);
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    at += 1;
    if (fence) {
      const code = [];
      while (at < lines.length && !lines[at].trimStart().startsWith(fence[1])) code.push(lines[at++]);
      at += 1;
      const block = element("pre", element("code", code.join("\n")));
      block.tabIndex = 0; // so that long lines can be reached by keyboard
      made.append(block);
    } else if (heading) {
      made.append(element("p", element("strong", ...inline(heading[2]))));
    } else if (list) {
      const kind = /\d/.test(list[1]) ? "ol" : "ul";
      const items = [element("li", ...inline(line.slice(list[0].length)))];
      for (let next; (next = /^\s*([-*+]|\d+[.)])\s+(.*)/.exec(lines[at] ?? "")); at += 1) {
        items.push(element("li", ...inline(next[2])));
      }
      made.append(element(kind, ...items));
    } else if (line.trim()) {
      const paragraph = [line];
      while (lines[at]?.trim() && !/^\s*(```|~~~|[-*+]\s|\d+[.)]\s|#{1,6}\s)/.test(lines[at])) paragraph.push(lines[at++]);
      made.append(element("p", ...inline(paragraph.join("\n"))));
    }
  }
  return made;
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^)\s]+)\)/g;

function* inline(text) {
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    yield text.slice(from, found.index);
    const [all, code, strong, emphasis, link, address] = found;
    if (code) yield element("code", code);
    else if (strong) yield element("strong", strong);
    else if (emphasis) yield element("em", emphasis);
    else {
      const anchor = element("a", link);
      anchor.href = address;
      anchor.rel = "noopener noreferrer";
      anchor.target = "_blank";
      yield anchor;
    }
    from = found.index + all.length;
  }
  yield text.slice(from);
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
