/** What a tab, or all tabs of a browser, keep over a reload. Where storage is forbidden or full nothing is kept. */
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

/** Where the page is: two services under one origin share neither connections nor what is kept. */
export const PLACE = new URL(".", document.baseURI).pathname;

export const ofTab = store("sessionStorage");
export const ofBrowser = store("localStorage");
