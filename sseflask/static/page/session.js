const KEPT = "sseflask.session";

/** Trades a token for a cookie that scripts can't read, and says whose it is. */
export function session(form, onChange) {
  const who = document.getElementById("who");
  const { token } = form.elements;
  const label = form.querySelector("label");
  const button = form.querySelector("button");

  function show() {
    const { sub, exp } = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    const signedIn = exp * 1000 > Date.now();
    who.textContent = signedIn ? `signed in as ${sub}` : "";
    button.textContent = signedIn ? "Sign out" : "Sign in";
    token.hidden = label.hidden = signedIn;
    return signedIn;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = token.value.trim();
    const out = token.hidden;
    const response = await fetch("/session", {
      method: out ? "DELETE" : "POST",
      headers: out ? {} : { Authorization: `Bearer ${given}` },
    });
    if (!response.ok) {
      who.textContent = (await response.json()).error.message;
      return;
    }
    token.value = "";
    if (out) localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, JSON.stringify(claims(given)));
    show();
    onChange();
  });
  show();
}

/** What a token says of itself; the server has checked it. */
function claims(token) {
  const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  const { sub, exp } = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  return { sub, exp };
}
