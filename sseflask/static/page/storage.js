/** What a tab, or all tabs of a browser, store over a reload. If storage is forbidden or full, nothing is stored. */
function store(name) {
  let area = null;
  try {
    area = globalThis[name];
  } catch (error) {
    console.info(`${name}: ${error.message}`);
  }
  return {
    get: (key) => {
      const text = area?.getItem(key);
      return text ? JSON.parse(text) : null;
    },
    set: (key, value) => {
      try {
        area?.setItem(key, JSON.stringify(value));
      } catch (error) {
        console.info(`${name}: ${error.message}`);
      }
    },
    remove: (key) => area?.removeItem(key),
  };
}

/** The path of the page: two services under one origin share neither connections nor storage. */
export const PLACE = new URL(".", document.baseURI).pathname;

export const ofTab = store("sessionStorage");
export const ofBrowser = store("localStorage");
