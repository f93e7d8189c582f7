"""How the page looks: light and dark, on paper and on a phone, without anything from elsewhere."""

from __future__ import annotations

from typing import Final

from cis490.report.style import PALETTE


def _variables(which: int) -> str:
    return "".join(f"--{name}:{colours[which]};" for name, colours in PALETTE.items())


_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:40px 24px 96px}
h1{font-size:15px;font-weight:600;margin:0 0 20px;color:var(--soft)}
h2{font-size:25px;line-height:1.25;font-weight:650;margin:72px 0 8px;letter-spacing:-.01em}
h3{font-size:17px;font-weight:650;margin:40px 0 6px}
p{margin:8px 0;max-width:70ch}
a{color:var(--realistic)}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
  overflow-wrap:break-word}
.question{font-size:26px;line-height:1.3;font-weight:650;letter-spacing:-.015em;margin:0 0 16px;
  max-width:32ch}
.answer{font-size:18px;line-height:1.5;margin:0 0 28px;max-width:62ch}
.banner{border:2px solid var(--failed);border-radius:8px;padding:14px 18px;margin:0 0 28px}
.tiles{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:12px;
  margin:0 0 28px;padding:0;list-style:none}
.tiles li{background:var(--faint);border-radius:10px;padding:14px 16px}
.tiles b{display:block;font-size:28px;line-height:1.15;font-weight:650;letter-spacing:-.02em;
  font-variant-numeric:tabular-nums}
.tiles .between{display:block;font-size:14px;font-variant-numeric:tabular-nums}
.tiles .what{display:block;font-size:13px;line-height:1.4;color:var(--soft);margin-top:6px}
.caveats{margin:0;padding:0;list-style:none;max-width:78ch}
.caveats li{padding:6px 0;border-top:1px solid var(--line);font-size:15px}
nav{margin:40px 0 0;font-size:14px;display:flex;flex-wrap:wrap;gap:6px 18px}
figure{margin:14px 0 6px;display:grid;grid-template-columns:minmax(0,560px) minmax(0,1fr);
  gap:8px 36px;align-items:start}
figure.wide{grid-template-columns:minmax(0,1fr)}
figcaption{font-size:14px;line-height:1.5;color:var(--soft);max-width:62ch}
figcaption strong{color:var(--ink)}
.drawing{overflow-x:auto}
svg{display:block;width:100%;max-width:calc(var(--width)*1.3);height:auto}
.wide svg{min-width:var(--width)}
svg *{stroke-linejoin:round}
svg text{font-family:inherit;font-variant-numeric:tabular-nums}
svg text:not([style*="fill:"]){fill:var(--ink)}
.none{background:var(--faint);border-radius:8px;padding:14px 18px;font-size:15px;color:var(--soft)}
details{margin:6px 0 0}
summary{cursor:pointer;font-size:14px;color:var(--realistic);padding:4px 0;width:max-content}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-size:13px;line-height:1.4;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;font-weight:400;white-space:nowrap}
thead th{color:var(--soft);border-bottom:1px solid var(--soft);vertical-align:bottom}
.long tbody th{white-space:normal;min-width:24ch}
td code{white-space:normal}
tbody tr{border-bottom:1px solid var(--line)}
th.n,td.n{text-align:right}
tr.few{color:var(--soft);background:repeating-linear-gradient(135deg,var(--faint) 0 6px,
  transparent 6px 12px)}
.prose td,.prose th{white-space:normal;min-width:15ch}
.prose td:nth-child(2){min-width:46ch}
.prose td:nth-child(3){min-width:272px}
.prose code{white-space:normal;font-size:12px}
.terms{font-size:15px;max-width:78ch;padding-left:20px}
footer{margin-top:72px;font-size:13px;color:var(--soft)}
@media screen and (max-width:760px){
  main{padding:24px 16px 64px}
  .question{font-size:22px}.answer{font-size:17px}
  h2{font-size:22px;margin-top:56px}
  figure{grid-template-columns:minmax(0,1fr)}
  .tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
  .tiles li{padding:12px}
  .tiles b{font-size:23px}
  .prose table,.prose tbody,.prose tr,.prose td,.prose th{display:block;min-width:0}
  .prose thead{display:none}
  .prose tr{padding:10px 0}
  .prose th[scope=row]{font-weight:650}
  .prose td,.prose td:nth-child(n){padding:2px 0;min-width:0}
}
@media print{
  body{font-size:10.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
  main{max-width:none;padding:0}
  nav,summary{display:none}
  h2{margin-top:28pt}
  figure,tr,.tiles,.drawing{break-inside:avoid}
  h2,h3{break-after:avoid}
  figure{grid-template-columns:minmax(0,440px) minmax(0,1fr);gap:6px 20px}
  .drawing,.scroll{overflow:visible}
  .wide svg{min-width:0}
  .scroll table{font-size:7.5pt}
  th,td{white-space:normal;padding-right:10px}
  td.n{white-space:nowrap}
}
"""

STYLESHEET: Final = (
    f":root{{color-scheme:light dark;{_variables(0)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}"
    f"{_RULES}"
)
