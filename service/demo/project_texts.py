"""What the files of the demo's project say."""

SETTINGS = """\
{mark}: {title}.
# Paths are relative to this file; what is not said here has its default.
name: {name}
data: {table}
label: label
features: {features}
functions: [slices.yaml, slices.py]

# Trained in seconds.
learner: {{kind: {kind}, epochs: {epochs}, seed: {seed}}}

# Two minutes pass in every second: all times below are those of this clock.
clock: {clock}
monitor: {{tick_seconds: 120}}
retrain:
  new_labels: {new_labels}
  check_seconds: 120
  margin: 0.03
  minimum_rows: 30
  wait_days: 1
  timeout_minutes: 600
report: {{every_hours: 12}}
"""

SLICES_YAML = r"""# Slices as templates. Protected: a model that is not shown to be as good there is not promoted.
slices:
  - name: short_comment
    description: four words at most
    owner: community
    target: 0.9
    protected: true
    length: {field: text, unit: words, below: 5}
  - name: keyword_please
    description: begs
    owner: community
    severity: info
    keyword: {field: text, words: [please, plz]}
  - name: keyword_subscribe
    description: asks to subscribe
    owner: growth
    target: 0.9
    keyword: {field: text, words: [subscribe]}
  - name: regex_check_out
    description: check out, check it out, check my video out
    owner: growth
    target: 0.9
    protected: true
    regex: {field: text, pattern: 'check.*out', ignore_case: true}
  - name: short_link
    description: holds a shortened link
    owner: trust
    severity: critical
    target: 0.85
    protected: true
    family: links
    regex: {field: text, pattern: '\w\.ly'}
  - name: has_url
    description: holds a web address
    owner: trust
    severity: critical
    target: 0.85
    family: links
    regex: {field: text, pattern: 'https?://|www\.|\.com'}
  - name: any_link
    description: holds a link of any kind
    owner: trust
    family: links
    any:
      - regex: {field: text, pattern: '\w\.ly'}
      - regex: {field: text, pattern: 'https?://|www\.|\.com'}
  - name: html_markup
    description: a line break tag or an HTML entity
    owner: platform
    regex: {field: text, pattern: '<br|&(?:#[0-9]+|[a-zA-Z][a-zA-Z0-9]*);'}
  - name: giveaway
    description: something is given away
    owner: trust
    regex: {field: text, pattern: 'giveaway|raffle', ignore_case: true}
  - name: not_ascii
    description: a letter of another alphabet than the English one
    owner: community
    severity: info
    regex: {field: text, pattern: '[À-ÖØ-öø-ɏЀ-ӿ]'}
  - name: timestamp_mention
    description: quotes a time in the video
    owner: community
    severity: info
    regex: {field: text, pattern: '\b\d{1,2}:\d{2}\b'}
"""

LIKES_YAML = """\
  - name: many_likes
    description: ten likes or more
    owner: community
    severity: info
    compare: {field: likes, at_least: 10}
"""

SLICES_PY = '''\
"""Slices as Python functions: each one answers whether one comment belongs."""

from sfs import slicing_function


@slicing_function(owner="community", severity="info")
def shouting(x):
    """Written in capitals."""
    return x.text is not None and len(x.text) > 8 and x.text.isupper()


@slicing_function(owner="community", severity="info")
def exclaiming(x):
    """Three exclamation marks or more."""
    return x.text is not None and x.text.count("!") >= 3


SLICES = (shouting, exclaiming)
'''
