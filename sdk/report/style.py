"""Style sheet and script of the page."""

from __future__ import annotations

STYLE = """
:root{--bg:#f6f6f4;--card:#fff;--ink:#1c1d1f;--muted:#5d6066;--line:#dcdcd8;--track:#e7e7e3;
--authentic:#1d7a46;--ai:#8a2fa8;--tampered:#b3261e;--uncertain:#8a5a00;--unread:#5d6066;--for:#8a2fa8;--against:#1d7a46;
--warn:#fff6e0;--warnline:#d9a520}
@media (prefers-color-scheme:dark){:root{--bg:#141517;--card:#1e2023;--ink:#e9e9e6;--muted:#a2a6ad;--line:#34373c;
--track:#303338;--authentic:#5cc98b;--ai:#d08bea;--tampered:#ff8a80;--uncertain:#f0bd57;--unread:#a2a6ad;--for:#d08bea;
--against:#5cc98b;--warn:#2d2718;--warnline:#a37c1c}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0 auto;max-width:68rem;padding:1.5rem 1rem 3rem;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;
-webkit-text-size-adjust:100%}
h1{font-size:1.6rem;margin:0;letter-spacing:-.01em}
h2{font-size:1rem;margin:0;overflow-wrap:anywhere;font-weight:600}
h3{font-size:.95rem;margin:1.4rem 0 .4rem}
p{margin:.35rem 0}
a{color:inherit}
.muted{color:var(--muted)}.small{font-size:.85rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:.85em ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;color:var(--muted)}
.top{margin-bottom:1.25rem}
.chips{display:flex;flex-wrap:wrap;gap:.5rem;margin:.9rem 0}
.chip{font:inherit;font-size:.9rem;padding:.25rem .8rem;border:1px solid currentColor;border-radius:99px;
background:none;cursor:pointer}
.chip[aria-pressed=true]{outline:2px solid currentColor;outline-offset:2px;font-weight:600}
.authentic{--c:var(--authentic)}.ai_generated,.ai_edited{--c:var(--ai)}.tampered{--c:var(--tampered)}
.uncertain{--c:var(--uncertain)}.unread{--c:var(--unread)}
.chip,.tag{color:var(--c)}.tag{font-weight:600;white-space:nowrap}
.card{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--c);border-radius:10px;
padding:1rem 1.25rem 1.25rem;margin:0 0 1.5rem;scroll-margin-top:1rem}
main.many .card{content-visibility:auto;contain-intrinsic-size:auto 60rem}
.card>header{padding-bottom:.7rem;color:var(--muted)}
.columns{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:1.5rem;align-items:start}
@media (max-width:44rem){.columns{grid-template-columns:minmax(0,1fr)}}
figure{margin:0}
.picture{position:relative;width:fit-content;max-width:100%;margin:0 auto;overflow:hidden;border-radius:6px;
background:var(--track)}
.picture img{display:block;max-width:100%;height:auto;max-height:32rem;width:auto}
.picture img.heat{position:absolute;max-width:none;max-height:none;image-rendering:pixelated;opacity:var(--heat,.65);
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.picture.none{width:100%;aspect-ratio:4/3;display:grid;place-items:center;color:var(--muted)}
.box{position:absolute;border:2px solid #fff;outline:1px solid #000;border-radius:2px}
.box b{position:absolute;top:0;left:0;padding:0 .3rem;background:#000;color:#fff;font-size:.75rem}
figcaption{margin-top:.4rem}
.heatbar{display:flex;flex-wrap:wrap;align-items:center;gap:.35rem .8rem;font-size:.9rem;margin-top:.2rem}
.heatbar input{flex:1 1 7rem;min-width:6rem;accent-color:var(--c)}
.legend{display:flex;align-items:center;gap:.35rem;font-variant-numeric:tabular-nums}
.legend i{width:6rem;height:.75rem;border-radius:3px;border:1px solid var(--line);print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.verdict{font-size:1.75rem;line-height:1.2;font-weight:700;color:var(--c);margin:0 0 .5rem;letter-spacing:-.015em}
.mark{display:inline-block;width:.62em;height:.62em;margin-right:.4em;border-radius:50%;background:var(--c);
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.ai_generated .mark,.ai_edited .mark{border-radius:1px;transform:rotate(45deg) scale(.9)}
.tampered .mark{border-radius:0;clip-path:polygon(50% 0,100% 100%,0 100%)}
.uncertain .mark{background:none;border:.14em solid var(--c)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .9rem .35rem 0}
thead th{border-bottom:1px solid var(--line);font-weight:600;color:var(--muted)}
tbody tr+tr td{border-top:1px solid var(--line)}
th.n,td.n{text-align:right}
.scroll{overflow-x:auto}
.overview td:first-child{overflow-wrap:anywhere;min-width:9rem;width:99%}
.overview th{white-space:nowrap}
.odds{margin:.9rem 0}.odds caption{text-align:left;font-weight:600;padding-bottom:.2rem}
.odds th{font-weight:400;white-space:nowrap}.odds td,.odds th,.odds tr+tr td{border:0;vertical-align:middle}
.odds .meter{width:34%;min-width:3rem}
@media (min-width:52rem){.odds td:last-child{white-space:nowrap}}
.bar{display:block;height:.6rem;border-radius:99px;background:var(--track);overflow:hidden;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.bar i{display:block;height:100%;background:var(--for);min-width:2px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.bar.tampered i{background:var(--tampered)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.3rem .9rem;margin:.6rem 0;font-size:.92rem}
dt{font-weight:600;max-width:14rem;overflow-wrap:anywhere}dd{margin:0;overflow-wrap:anywhere}
.warnings{background:var(--warn);border-left:4px solid var(--warnline);border-radius:6px;padding:.5rem .9rem;
margin-top:1rem;font-size:.92rem}
.warnings h3{margin:0}.warnings ul{margin:.2rem 0;padding-left:1.1rem}
.chart svg{display:block;width:100%;max-width:720px;height:auto;font-size:14px}
@media (max-width:44rem){.chart svg{font-size:20px}}
.chart text{fill:currentColor}.chart .axis{fill:var(--muted);font-size:12px}
.chart line{stroke:var(--muted);stroke-width:1}
.chart rect.for{fill:var(--for)}.chart rect.against{fill:var(--against)}.chart rect.total{opacity:.55}
.chart .value{font-variant-numeric:tabular-nums}.chart text.total{font-weight:700}
.evidence tr.failed td,.evidence tr.unavailable td{color:var(--uncertain)}
.evidence tr.not_applicable td{color:var(--muted)}
.evidence td:last-child{overflow-wrap:anywhere;min-width:14rem}
.more{margin-top:1rem}
details{border-top:1px solid var(--line);padding:.45rem 0}
summary{cursor:pointer;font-weight:600;font-size:.92rem}
footer{color:var(--muted);font-size:.9rem;max-width:46rem}
footer h2{color:var(--ink)}footer ul{padding-left:1.1rem}
:focus-visible{outline:3px solid var(--ai);outline-offset:2px}
[hidden]{display:none!important}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{
:root{--bg:#fff;--card:#fff;--ink:#000;--muted:#444;--line:#bbb;--track:#ddd;--authentic:#1d7a46;--ai:#8a2fa8;
--tampered:#b3261e;--uncertain:#8a5a00;--for:#8a2fa8;--against:#1d7a46;--warn:#fff}
body{max-width:none;padding:0;font-size:10.5pt}
.chips,.heatbar input,.heatbar label{display:none}
.card{border-color:#bbb;border-top-color:var(--c)}
main.many .card{content-visibility:visible}
.card,.columns,.chart,figure,tr,.warnings{break-inside:avoid}.card>header{break-after:avoid}
.picture img{max-height:9cm}
}
"""

SCRIPT = """
document.querySelectorAll('[data-heat]').forEach(function(slider){
  var picture=slider.closest('figure').querySelector('.picture');
  function show(){picture.style.setProperty('--heat',slider.value/100)}
  slider.addEventListener('input',show);show();
});
var chips=document.querySelectorAll('[data-filter]');
chips.forEach(function(chip){
  chip.addEventListener('click',function(){
    var on=chip.getAttribute('aria-pressed')!=='true';
    chips.forEach(function(c){c.setAttribute('aria-pressed',on&&c===chip)});
    document.querySelectorAll('[data-label]').forEach(function(e){
      e.hidden=on&&e.dataset.label!==chip.dataset.filter;
    });
  });
});
"""
