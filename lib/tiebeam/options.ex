defmodule Tiebeam.Options do
  @moduledoc false
  # The options of `Tiebeam.start_link/1`: one schema that validates and renders the documentation.

  alias Tiebeam.{Discovery, Native}

  @profiles [:lan, :fast, :wan]

  # Their values are the core's own, by profile; here they are only documented: `:lan`, `:fast`, `:wan`.
  @timing [
    probe_interval:
      {:milliseconds, {:profile, "1000 / 250 / 5000"},
       "The protocol period: each member probes one other per period (SWIM, section 3.1)."},
    probe_timeout:
      {:milliseconds, {:profile, "500 / 100 / 3000"},
       "How long a probe waits for its answer before others are asked to probe as well. Shorter than the period."},
    indirect_probes: {:count, {:profile, "3 / 3 / 3"}, "How many others are asked."},
    suspicion_multiplier:
      {:count, {:profile, "4 / 3 / 6"},
       "A suspicion lasts at least so many periods, times the logarithm of the number of members."},
    suspicion_max_multiplier:
      {:count, {:profile, "6 / 6 / 6"},
       "It lasts at most so many times longer, while nobody else confirms it (Lifeguard, section 3.2)."},
    retransmit_multiplier:
      {:count, {:profile, "4 / 4 / 4"},
       "A word about a member is passed on so many times the logarithm of the number of members; twice as often while " <>
         "messages are being lost."},
    gossip_interval:
      {:milliseconds, {:profile, "200 / 50 / 500"},
       "The pause between two rounds of gossip beside the probes, while there is something to tell."},
    gossip_fanout: {:count, {:profile, "3 / 3 / 4"}, "To how many members each round of gossip goes."},
    sync_interval:
      {:milliseconds, {:profile, "30000 / 15000 / 60000"},
       "The pause between two exchanges of the whole table with a member in turn, longer above 32 members."},
    greet_first:
      {:milliseconds, {:profile, "1000 / 250 / 3000"},
       "The first pause before a node that did not answer is greeted again; it doubles."},
    greet_max:
      {:milliseconds, {:profile, "30000 / 10000 / 60000"},
       "The longest such pause: the time in which a healed network is noticed."},
    forget_after:
      {:milliseconds, {:profile, "86400000 / 86400000 / 86400000"},
       "How long a member that is dead or has left stays listed, and a dead one is dialled."}
  ]

  @schema [
    name:
      {:atom, :required,
       "The local name of the cluster, the first argument of every function. Nodes need not agree on it."},
    cluster:
      {:string, "default",
       "The identity of the cluster, the same on all its nodes. Nodes with different identities refuse each other, " <>
         "even when they are connected."},
    join:
      {:nodes, [],
       "Nodes to look for until they are found. Nodes that are connected anyway need not be named; the own name is " <>
         "skipped, so that all nodes can share one list."},
    discovery:
      {:list, [],
       "Ways to find nodes: each a module, or a module with options, such as `{Tiebeam.Discovery.DNS, query: \"app.internal\"}`. " <>
         "See `Tiebeam.Discovery`."},
    process:
      {:atom, :tiebeam,
       "The registered name that members send to, the same on all nodes of the cluster. A second cluster on one node " <>
         "needs another one."},
    profile:
      {:profile, :lan,
       "How soon a hung node is known, for all members of the cluster alike. `:lan`: one network, about nine seconds, " <>
         "and nobody is declared dead for lost messages. `:fast`: one network whose nodes do not pause for a second, one " <>
         "to three seconds. `:wan`: several networks, hundreds of milliseconds apart."},
    timing:
      {{:keyword, @timing}, [],
       "Replaces single values of the profile, whose own are given as `:lan` / `:fast` / `:wan`."},
    metadata:
      {:binary, "",
       "What this node tells about itself, at most 512 bytes: `Tiebeam.set_metadata/2` replaces it."},
    entries_per_scope:
      {:count, 1_048_576,
       "The most names, and memberships of groups, that this node registers in one scope of `Tiebeam.Registry` and " <>
         "`Tiebeam.Group`. Every node holds them all."},
    evict:
      {:boolean, {:profile, "`true` in the profile `:fast`, otherwise `false`"},
       "Close the connection to a member that is dead, so that links, monitors and `:global` hear of it in seconds " <>
         "instead of a minute (OTP's net ticks). Only where this node sees a majority of the members, is itself " <>
         "well, and nothing came over that connection since; see `t:Tiebeam.Event.contest/0`. Otherwise a member that hangs " <>
         "stays a suspect until its connection ends."},
    voters:
      {:nodes, [],
       "The nodes that agree on a leader, an odd number of them, at most nine: more than half must be there for `Tiebeam.Leader`, " <>
         "`Tiebeam.KV` and `Tiebeam.Lock` to work. The same on all nodes, also on those that do not vote, which follow. It " <>
         "counts when the group is founded; later `Tiebeam.Leader.add_voter/2` and `remove_voter/2` change who votes."},
    expect:
      {:count, 0,
       "Instead of `:voters`: the first so many nodes that see each other vote. Fewer than twice as many may be started before the " <>
         "group is there: two halves of a network would found two, which refuse each other."},
    data_dir:
      {:directory, :memory,
       "Where this node keeps what the group agreed on: a directory of its own. With `:memory` it keeps nothing when its VM ends, and " <>
         "returns as a new member; if more than half of the voters end at once, all is lost."},
    session_ttl:
      {:milliseconds, {:profile, "3000 / 3000 / 15000"},
       "How long what a node's processes hold (locks, singletons, strong names) outlives a node that is gone without a word, 500 ms to a day."}
  ]

  # Milliseconds; as in the core.
  @session_ttl 500..86_400_000

  @type t :: %{
          name: atom,
          cluster: String.t(),
          join: [node],
          discovery: [Discovery.t()],
          process: atom,
          profile: :lan | :fast | :wan,
          timing: Native.timing(),
          metadata: binary,
          entries_per_scope: pos_integer,
          evict: boolean,
          voters: [node],
          expect: non_neg_integer,
          data_dir: :memory | Path.t(),
          session_ttl: pos_integer | nil
        }

  @doc "The options with their defaults, or an `ArgumentError` that says which one is wrong and how."
  @spec validate!(keyword) :: t
  def validate!(options) do
    options = options |> validate!(@schema, "") |> complete()

    if options.voters != [] and options.expect > 0 do
      raise ArgumentError,
            "the options :voters and :expect exclude each other: name the voters, or say how many there are"
    end

    unless options.session_ttl == nil or options.session_ttl in @session_ttl do
      raise ArgumentError,
            "the option :session_ttl must be from 500 to 86400000 ms, it is #{options.session_ttl}"
    end

    case Native.new(settings(options)) do
      {:ok, _cluster} -> options
      {:error, message} -> raise ArgumentError, message
    end
  end

  @doc "What the core is made from, as of now: the node's name may change when distribution starts or stops."
  @spec settings(t) :: Native.settings()
  def settings(options) do
    %{
      node: node(),
      creation: :erlang.system_info(:creation),
      # Grows from core to core within one creation, faster than any core raises its own.
      incarnation: since_vm_start(),
      cluster: options.cluster,
      join: options.join,
      seed: :rand.uniform(0xFFFFFFFFFFFFFFFF),
      metadata: options.metadata,
      evict: options.evict,
      entries_per_scope: options.entries_per_scope,
      timing: options.timing,
      leadership: leadership(options)
    }
  end

  @doc "Whether this node takes part in the group that agrees on a leader."
  @spec leadership?(t) :: boolean
  def leadership?(options), do: options.voters != [] or options.expect > 0

  # A node without a disk has a new identity in the group at each start: it may have voted.
  defp leadership(options) do
    if leadership?(options) do
      %{
        voters: if(options.expect > 0, do: options.expect, else: options.voters),
        profile: options.profile,
        session_ttl: options.session_ttl,
        stored: {:memory, fresh_member()}
      }
    end
  end

  @doc "A new identity in the group."
  @spec fresh_member() :: non_neg_integer
  def fresh_member, do: :binary.decode_unsigned(:crypto.strong_rand_bytes(8))

  @doc "The documentation of all options, in Markdown."
  @spec docs() :: String.t()
  def docs, do: docs(@schema, "")

  @doc "The documented values of the timing option `key`, in the order of `profiles/0`."
  @spec documented(atom) :: [integer]
  def documented(key) do
    {_type, {:profile, values}, _doc} = Keyword.fetch!(@timing, key)
    values |> String.split(" / ") |> Enum.map(&String.to_integer/1)
  end

  @spec profiles() :: [:lan | :fast | :wan]
  def profiles, do: @profiles

  # What was not given is the profile's.
  defp complete(options) do
    given = Map.reject(options.timing, fn {_key, value} -> value == nil end)
    timing = Map.merge(Native.timing(options.profile), given)
    evict = if options.evict == nil, do: options.profile == :fast, else: options.evict
    discovery = Enum.map(options.discovery, &Discovery.new!/1)
    %{options | timing: timing, evict: evict, discovery: discovery}
  end

  defp validate!(options, schema, path) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "expected #{path <> "options"} to be a keyword list, got: #{inspect(options)}"
    end

    case Keyword.keys(options) -- Keyword.keys(schema) do
      [] ->
        Map.new(schema, fn {key, {type, default, _doc}} ->
          {key, value!(options, path <> inspect(key), key, type, default)}
        end)

      [key | _] ->
        known = schema |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)
        raise ArgumentError, "unknown or repeated option #{path <> inspect(key)}; the options are #{known}"
    end
  end

  defp value!(options, path, key, type, default) do
    case {Keyword.fetch(options, key), default} do
      {{:ok, value}, _default} -> check!(type, value, path)
      {:error, :required} -> raise ArgumentError, "the option #{path} is required"
      {:error, {:profile, _doc}} -> nil
      {:error, default} -> check!(type, default, path)
    end
  end

  defp check!({:keyword, schema}, value, path), do: validate!(value, schema, path <> " ")

  defp check!(type, value, path) do
    if valid?(type, value) do
      value
    else
      raise ArgumentError, "expected the option #{path} to be #{describe(type)}, got: #{inspect(value)}"
    end
  end

  defp valid?(:atom, value), do: is_atom(value) and value not in [nil, true, false]
  defp valid?(:string, value), do: is_binary(value) and String.valid?(value)
  defp valid?(:nodes, value), do: is_list(value) and Enum.all?(value, &valid?(:atom, &1))
  defp valid?(:list, value), do: is_list(value)
  defp valid?(:binary, value), do: is_binary(value)

  defp valid?(:directory, value),
    do: value == :memory or (is_binary(value) and value != "" and String.valid?(value))

  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:profile, value), do: value in @profiles
  # What the core can take; it judges the range.
  defp valid?(:count, value), do: is_integer(value) and value in 0..0xFFFFFFFF
  defp valid?(:milliseconds, value), do: is_integer(value) and value in 1..0xFFFFFFFF

  defp describe(:atom), do: "an atom"
  defp describe(:string), do: "a string"
  defp describe(:nodes), do: "a list of node names"
  defp describe(:list), do: "a list"
  defp describe(:binary), do: "a binary"
  defp describe(:directory), do: ":memory or a path"
  defp describe(:boolean), do: "true or false"
  defp describe(:profile), do: ":lan, :fast or :wan"
  defp describe(:count), do: "a number"
  defp describe(:milliseconds), do: "a positive number of milliseconds"
  defp describe({:keyword, _schema}), do: "a keyword list"

  defp docs(schema, indent) do
    Enum.map_join(schema, "\n", fn {key, {type, default, doc}} ->
      default =
        case {type, default} do
          {_type, :required} -> "Required."
          {{:keyword, nested}, _default} -> "\n\n" <> docs(nested, indent <> "  ")
          {_type, {:profile, text}} -> "Default: #{text}."
          {_type, default} -> "Default: `#{inspect(default)}`."
        end

      "#{indent}- `#{inspect(key)}` (#{describe(type)}) - #{doc} #{default}"
    end)
  end

  defp since_vm_start do
    System.convert_time_unit(
      :erlang.monotonic_time() - :erlang.system_info(:start_time),
      :native,
      :microsecond
    )
  end
end
