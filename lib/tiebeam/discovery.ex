defmodule Tiebeam.Discovery do
  @moduledoc """
  Ways to find the nodes of a cluster: the option `:discovery` of `Tiebeam.start_link/1`.

      children = [
        {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.Gossip, secret: "somepassword"}]}
      ]

  | | finds |
  |---|---|
  | `Tiebeam.Discovery.Static` | nodes that are named |
  | `Tiebeam.Discovery.Epmd` | the nodes that epmd knows on given hosts |
  | `Tiebeam.Discovery.ErlangHosts` | the same, on the hosts in a file `.hosts.erlang` |
  | `Tiebeam.Discovery.DNS` | `basename@address` for all addresses of a name |
  | `Tiebeam.Discovery.SRV` | `basename@host` for all targets of an SRV record |
  | `Tiebeam.Discovery.Kubernetes` | the pods behind a headless service |
  | `Tiebeam.Discovery.KubernetesAPI` | the pods or endpoints that have given labels, by Kubernetes' API |
  | `Tiebeam.Discovery.Gossip` | whoever multicasts, as libcluster's `Cluster.Strategy.Gossip` does |

  Rust nodes have the same (`tiebeam node --discover`). Nodes that something else connects, such as libcluster or `dns_cluster`,
  become members all the same: an application that uses one of them needs nothing of this. `Cluster.Strategy.Tiebeam` runs a cluster
  with these discoveries as a topology of libcluster.

  ## Options of all

  - `:interval` (milliseconds) - The pause between two looks; a quarter more or less, so that nodes do not look in step. Default:
    5000. `Tiebeam.Discovery.Gossip` has a pace of its own, and takes none.
  - `:connect` (a tuple of module, function and arguments) - How to connect: called with the node after the arguments, it
    answers `true` when it is connected. Default: `{:net_kernel, :connect_node, []}`.
  - `:disconnect_vanished` (true or false) - Disconnect a node that was found once, and is missing in three complete answers in
    succession; an answer without any node is none. Default: `false`, because a resolver that forgets a node is no reason to lose
    it, and because all nodes disconnect from one that one of them disconnects (`prevent_overlapping_partitions`).

  ## What happens

  Each entry of the list is a supervised process, and one that looks. Nodes that are found and not connected are dialled, each
  in a task; one that is not reached rests for a second first, and for half a minute at most. What fails is logged, once for each
  reason, and tried again. Nothing of this waits in the process by which others judge this node. A discovery remembers at
  most 4,096 names, and makes at most 65,536 atoms of names that the VM does not know.

  Where `:telemetry` is in the code path, these events are executed, with `%{cluster: name, discovery: module}` and what is listed
  here as metadata:

  | event | measurements | metadata |
  |---|---|---|
  | `[:tiebeam, :connect_node, :ok]` | `%{duration: native_time}` | `:node` |
  | `[:tiebeam, :connect_node, :error]` | `%{duration: native_time}` | `:node`, `:reason` |
  | `[:tiebeam, :disconnect_node, :ok]` | `%{count: 1}` | `:node` |
  | `[:tiebeam, :discovery, :error]` | `%{count: 1}` | `:reason` |

  ## One of your own

      defmodule MyApp.HostsFile do
        @behaviour Tiebeam.Discovery

        @impl true
        def init(options), do: Keyword.fetch!(options, :path)

        @impl true
        def find(path) do
          case File.read(path) do
            {:ok, text} -> {:ok, String.split(text), path}
            {:error, reason} -> {:error, reason, path}
          end
        end
      end

      {Tiebeam, name: MyApp.Cluster, discovery: [{MyApp.HostsFile, path: "/etc/my_app/nodes"}]}
  """

  @enforce_keys [:module, :state, :interval, :connect, :disconnect_vanished]
  defstruct @enforce_keys

  @typedoc "What `c:init/1` made of the options."
  @type state :: term

  @typedoc "The name of a node. As a string it becomes an atom only when the node is dialled."
  @type name :: node | String.t()

  @typedoc "An entry of the option `:discovery`."
  @type entry :: module | {module, keyword}

  @typedoc false
  @type t :: %__MODULE__{
          module: module,
          state: state,
          interval: non_neg_integer,
          connect: {module, atom, [term]},
          disconnect_vanished: boolean
        }

  @doc """
  Checks the options, without those of all discoveries, and makes the first state of them. Called once, in the process that
  starts the cluster; opens nothing. Raises `ArgumentError` for options that cannot be used.
  """
  @callback init(options :: keyword) :: state

  @doc """
  The nodes that there are now. Called again and again in a process of its own, where it may wait.

  - `{:ok, nodes, state}` - all there are: one that is missing has vanished.
  - `{:some, nodes, state}` - some of them: nothing is known of others.
  - `{:error, reason, state}` - nobody knows; it is asked again after a pause that grows.

  Names that are none, and the own one, are passed over. If it raises, it begins again with the first state.
  """
  @callback find(state) ::
              {:ok, [name], state} | {:some, [name], state} | {:error, reason :: term, state}

  @doc "The pause between two looks if no option gives one, in milliseconds. Default: 5000. Zero if `c:find/1` itself waits."
  @callback interval() :: non_neg_integer

  @optional_callbacks interval: 0

  @interval 5_000

  @doc false
  # An entry of the option, checked.
  @spec new!(entry) :: t
  def new!(module) when is_atom(module), do: new!({module, []})

  def new!({module, options}) when is_atom(module) do
    unless Keyword.keyword?(options) do
      raise ArgumentError,
            "expected the options of #{inspect(module)} to be a keyword list, got: #{inspect(options)}"
    end

    unless Code.ensure_loaded?(module) and function_exported?(module, :find, 1) do
      raise ArgumentError, "#{inspect(module)} is no discovery: it has no find/1. See Tiebeam.Discovery"
    end

    {common, options} = Keyword.split(options, [:interval, :connect, :disconnect_vanished])

    discovery = %__MODULE__{
      module: module,
      state: module.init(options),
      interval: common[:interval] || default_interval(module),
      connect: common[:connect] || {:net_kernel, :connect_node, []},
      disconnect_vanished: Keyword.get(common, :disconnect_vanished, false)
    }

    check!(discovery, :interval, &(is_integer(&1) and &1 >= 0), "a number of milliseconds")
    check!(discovery, :connect, &mfa?/1, "a tuple of module, function and arguments")
    check!(discovery, :disconnect_vanished, &is_boolean/1, "true or false")
    discovery
  end

  def new!(other) do
    raise ArgumentError,
          "expected an entry of :discovery to be a module or {module, options}, got: #{inspect(other)}"
  end

  defp default_interval(module) do
    if function_exported?(module, :interval, 0), do: module.interval(), else: @interval
  end

  defp mfa?({module, function, arguments}),
    do: is_atom(module) and is_atom(function) and is_list(arguments)

  defp mfa?(_other), do: false

  defp check!(discovery, key, valid?, what) do
    value = Map.fetch!(discovery, key)

    unless valid?.(value) do
      raise ArgumentError,
            "expected #{inspect(key)} of #{inspect(discovery.module)} to be #{what}, got: #{inspect(value)}"
    end
  end

  @doc false
  # For the discoveries of this package: only these options, each with a test and what it should be.
  @spec options!(module, keyword, [{atom, default :: term, (term -> boolean), String.t()}]) :: map
  def options!(module, options, schema) do
    known = for {key, _default, _valid?, _what} <- schema, do: key

    with [key | _] <- Keyword.keys(options) -- known do
      known = Enum.map_join(known ++ [:interval, :connect, :disconnect_vanished], ", ", &inspect/1)

      raise ArgumentError,
            "unknown or repeated option #{inspect(key)} of #{inspect(module)}; the options are #{known}"
    end

    Map.new(schema, fn {key, default, valid?, what} ->
      value = Keyword.get(options, key, default)

      unless valid?.(value) do
        raise ArgumentError,
              "expected #{inspect(key)} of #{inspect(module)} to be #{what}, got: #{inspect(value)}"
      end

      {key, value}
    end)
  end
end
