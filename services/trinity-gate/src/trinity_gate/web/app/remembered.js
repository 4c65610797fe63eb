/** What the browser keeps: preferences for good, the token for this tab only. @module */

function keep(storage) {
  return {
    get(name, fallback = null) {
      try {
        return storage().getItem(`gate.${name}`) ?? fallback;
      } catch {
        return fallback; // storage switched off: the page works, it only forgets
      }
    },
    set(name, value) {
      try {
        if (value === null) storage().removeItem(`gate.${name}`);
        else storage().setItem(`gate.${name}`, value);
      } catch {
        /* as above */
      }
    },
  };
}

export const preferences = keep(() => localStorage);
export const session = keep(() => sessionStorage);
