"""Icon names of fxemoji (and emojione v1) that no table knows, and the Unicode label each one means.

Written down by hand from the drawings' names: abbreviations (`heartblue`), misspellings (`hampster`, `saggitarius`), old
character names.
"""

from __future__ import annotations

_TABLE = """
2hearts: two hearts                                                     acorn: chestnut
americasglobe: globe showing Americas                                   anguish: anguished face
aok: OK hand                                                            asiaaustraliaglobe: globe showing Asia-Australia
backwithleftwardsarrow: BACK arrow                                      banknotedollar: dollar banknote
banknoteeuro: euro banknote                                             banknotepound: pound banknote
banknoteyen: yen banknote                                               bellcancellation: bell with slash
blackdownpointingbackhand: backhand index pointing down                 blackdownpointingdoublearrow: fast down button
blackleftpointingbackhand: backhand index pointing left                 blackleftpointingdoublearrow: fast reverse button
blackrightpointingbackhand: backhand index pointing right               blackrightpointingdoublearrow: fast-forward button
blackuppointingbackhand: backhand index pointing up                     blackuppointingdoublearrow: fast up button
blackleftpointingarrow: reverse button                                  blackrightpointingarrow: play button
blackquestionmark: red question mark                                    blackskullcrossbones: skull and crossbones
black-skull-cross-bones: skull and crossbones                           bolt: high voltage
bookmarktab: bookmark tabs                                              bowing: person bowing
bride: person with veil                                                 bunny: rabbit face
bunnyside: rabbit                                                       catside: cat
cellphone: mobile phone                                                 chartdownwardstrend: chart decreasing
chartupwardstrend: chart increasing                                     chartupwardstrendyen: chart increasing with yen
chilipepper: hot pepper                                                 chineseflag: flag: China
clock12oclock: twelve o’clock                                           clock12thirty: twelve-thirty
clock1oclock: one o’clock                                               clock1thirty: one-thirty
clock2oclock: two o’clock                                               clock2thirty: two-thirty
clock3oclock: three o’clock                                             clock3thirty: three-thirty
clock4oclock: four o’clock                                              clock4thirty: four-thirty
clock5thirty: five-thirty                                               clock6oclock: six o’clock
clock6thirty: six-thirty                                                clock7oclock: seven o’clock
closedmailboxlowered: closed mailbox with lowered flag                  closedmailboxraised: closed mailbox with raised flag
confetti: confetti ball                                                 construct: construction worker
controlknob: control knobs                                              crying: crying face
devilhorns: smiling face with horns                                     diamondshapewithdotinside: diamond with a dot
dissapointedrelief: sad but relieved face                               dogside: dog
doubleexclaimationmark: double exclamation mark                         downpointingsmallredtrisngle: red triangle pointed down
uppointingsmallredtrisngle: red triangle pointed up                     dragonhead: dragon face
dragonside: dragon                                                      eightspokedasterix: eight-spoked asterisk
endwithleftwardsarrow: END arrow                                        envelopedownarrowabove: envelope with arrow
europeafricaglobe: globe showing Europe-Africa                          evergreen: evergreen tree
exclaimationquestionmark: exclamation question mark                     fallingleaf: fallen leaf
fishcakeswirl: fish cake with swirl                                     fistedhand: oncoming fist
flexbicep: flexed biceps                                                floppydisk2: floppy disk
forkknife: fork and knife                                               franceflag: flag: France
frontfacingchick: front-facing baby chick                               girlgirl: women holding hands
girlguy: woman and man holding hands                                    guyguy: men holding hands
gma: old woman                                                          gpa: old man
greatbritainflag: flag: United Kingdom                                  grineyes: grinning face with smiling eyes
grinsquint: grinning squinting face                                     grinsweat: grinning face with sweat
grintears: face with tears of joy                                       grinwide: grinning face with big eyes
hampster: hamster                                                       headmassage: person getting massage
heartarrow: heart with arrow                                            heartblue: blue heart
heartgreen: green heart                                                 heartpurple: purple heart
heartyellow: yellow heart                                               heavyexclaimationmarksymbol: red exclamation mark
heavymultiplicationsymbol: multiply                                     heels: high-heeled shoe
highspeedtrainbulletnose: bullet train                                  italianflag: flag: Italy
japaneseangrymask: ogre                                                 japanflag: flag: Japan
kissclosedeyes: kissing face with closed eyes                           kisseyes: kissing face with smiling eyes
koreaflag: flag: South Korea                                            leaffluttering: leaf fluttering in wind
leftmagnifyingglass: magnifying glass tilted left                       leopardside: leopard
lockandkey: locked with key                                             loudlycrying: loudly crying face
makeupbag: clutch bag                                                   manltepiececlock: mantelpiece clock
mansshirt: t-shirt                                                      mensrunner: running shoe
mensshoe: man’s shoe                                                    meridianglobe: globe with meridians
monkeyhear: hear-no-evil monkey                                         monkeysee: see-no-evil monkey
monkeyspeak: speak-no-evil monkey                                       mouseside: mouse
negativesquaredlatincaptiala: A button (blood type)                     negativesquaredlatincaptialb: B button (blood type)
negativesquaredlatincaptialo: O button (blood type)                     nogesture: person gesturing NO
okgesture: person gesturing OK                                          nooneunder18symbol: no one under eighteen
notebookdecorativecover: notebook with decorative cover                 onarrowleftright: ON! arrow
openmailboxlowered: open mailbox with lowered flag                      openmailboxraised: open mailbox with raised flag
outbox: outbox tray                                                     perservere: persevering face
phonerightarrowleft: mobile phone with arrow                            pigside: pig
pigsnout: pig nose                                                      pinkwallet: purse
potablewatersystem: potable water                                       present: wrapped gift
reminder: reminder ribbon                                               rightmagnifyingglass: magnifying glass tilted right
russianflag: flag: Russia                                               saggitarius: Sagittarius
sandals: woman’s sandal                                                 screamfear: face screaming in fear
silhouetteohjapan: map of Japan                                         sixpointedstarwithdot: dotted six-pointed star
sleuthspy: detective                                                    smallfrown: slightly frowning face
smallsmile: slightly smiling face                                       smileeyes: smiling face with smiling eyes
snowmountains: snow-capped mountain                                     soonwithrightarrow: SOON arrow
spanishflag: flag: Spain                                                speaker3soundwaves: speaker high volume
speakercancellation: muted speaker                                      speakeronesoundwave: speaker medium volume
speechbubble: speech balloon                                            spurtingwhale: spouting whale
stormcloud: cloud with lightning                                        studiomic: studio microphone
sunraincloud: sun behind rain cloud                                     sweatsplash: sweat droplets
telephonereceiver2: telephone receiver                                  tennisball: tennis
thoughtbaloon: thought balloon                                          tigerside: tiger
tongueoutwink: winking face with tongue                                 tongueoutwink2: winking face with tongue
topwithupwardsarrow: TOP arrow                                          toykotower: Tokyo tower
turban: person wearing turban                                           videocasette: videocassette
waningbibbousmoon: waning gibbous moon                                  waving: waving hand
whiteexclaimationmark: white exclamation mark                           winking: winking face
womansshirt: woman’s clothes                                            silhouetteofjapan: map of Japan
"""

CORRECTIONS: dict[str, str] = {}
for _line in _TABLE.strip().splitlines():
    for _cell in _line.split("   "):
        if _cell.strip():
            _name, _, _label = _cell.strip().partition(": ")
            CORRECTIONS[_name] = _label
