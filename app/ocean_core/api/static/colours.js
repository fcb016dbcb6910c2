// Follows the colours that the system prefers; the viewer itself only knows a class.
"use strict";
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();
}
