defmodule Tiebeam.Lock do
  @moduledoc """
  Locks that all nodes of a cluster agree on, BEAM or Rust, with tokens that fence.

      iex> Tiebeam.Lock.with(MyApp.Cluster, "billing", fn token -> token > 0 end)
      {:ok, true}

  A lock has a name as in `Tiebeam.Registry`, and belongs to a process. It is given back by `release/3`, when its process
  ends, at the end of its `:ttl` if it has one, and when this node is gone or cut off for as long as the option `:session_ttl`
  of the cluster. Its process is told what is lost without its doing, before anybody else can have it (if the clocks of two
  nodes run alike):

      {:tiebeam, cluster, {:lost, :lock, name, token}}

  A process may be held up, and act after it lost the lock. So the token is a number that grows with each grant: whoever
  guards what the lock protects should refuse a token that is less than the greatest it has seen.

  ## Consistency

  Taking, holding and giving back are linearizable and need a majority. `list/1` reads what this node has. The errors are
  those of `t:Tiebeam.Leader.error/0`; after `{:error, :unknown}` a lock that was granted is given back by itself.
  """

  alias Tiebeam.{Leader, Leadership, Registry, Table}
  alias Tiebeam.Leadership.Guard
  alias Tiebeam.Registry.Name

  @typedoc "An atom, a UTF-8 binary, an integer, or a tuple or list of these, at most 1,024 bytes."
  @type name :: Registry.name()

  @typedoc "A number that grows with each grant."
  @type token :: pos_integer

  @typedoc "Who holds a lock. `:pid` is `nil` if it is no process of a kind that this node knows."
  @type holding :: %{name: name, token: token, pid: pid | nil, metadata: term}

  @typedoc "Why a lock was not taken; `:held`: somebody else has it."
  @type error :: :held | Name.invalid() | Leader.error()

  @doc """
  Takes a lock for the calling process. Waits while another process has it, at most `:timeout` milliseconds (default 5,000),
  then answers `{:error, :held}`. Those that wait are served in no particular order.

  Options: `:timeout`; `:ttl`, for how many milliseconds (500 to a day), if not until it is given back or the process ends;
  `:metadata`, which `list/1` shows.

  A process that has the lock already does not get it twice: it waits as any other.

      iex> {:ok, token} = Tiebeam.Lock.acquire(MyApp.Cluster, {:invoice, 7}, ttl: 10_000)
      iex> Tiebeam.Lock.release(MyApp.Cluster, {:invoice, 7}, token)
      :ok
  """
  @spec acquire(Tiebeam.name(), name, keyword) :: {:ok, token} | {:error, error}
  def acquire(cluster, name, options \\ []), do: take(cluster, name, true, options)

  @doc """
  As `acquire/3`, but does not wait for another process: if the lock is held the answer is `{:error, :held}`.

      iex> {:ok, token} = Tiebeam.Lock.try_acquire(MyApp.Cluster, "once")
      iex> Task.await(Task.async(fn -> Tiebeam.Lock.try_acquire(MyApp.Cluster, "once") end))
      {:error, :held}
      iex> Tiebeam.Lock.release(MyApp.Cluster, "once", token)
      :ok
  """
  @spec try_acquire(Tiebeam.name(), name, keyword) :: {:ok, token} | {:error, error}
  def try_acquire(cluster, name, options \\ []), do: take(cluster, name, false, options)

  defp take(cluster, name, wait?, options) do
    options = Leadership.options!(options, timeout: Leadership.timeout(), ttl: nil, metadata: nil)
    pid = self()
    value = Leadership.holder(pid, options.metadata)

    with {:ok, bytes} <- Name.encode(name) do
      command = {:acquire, :lock, bytes, value, options.ttl, Name.encode_pid(pid), wait?}

      case Leadership.ask(cluster, command, options.timeout, pid) do
        {:done, token} -> {:ok, token}
        other -> Leadership.error(other)
      end
    end
  end

  @doc """
  Holds a lock for at least `ttl` more milliseconds from now on. `{:error, :not_held}`: the token is not, or no longer, that
  of the lock. Stop what it protected.

  One that was taken without `:ttl` lasts as long as its process anyway.

      iex> {:ok, token} = Tiebeam.Lock.acquire(MyApp.Cluster, "renewed", ttl: 1_000)
      iex> Tiebeam.Lock.renew(MyApp.Cluster, "renewed", token, 10_000)
      :ok
      iex> Tiebeam.Lock.renew(MyApp.Cluster, "renewed", token + 1, 10_000)
      {:error, :not_held}
  """
  @spec renew(Tiebeam.name(), name, token, ttl :: pos_integer, keyword) ::
          :ok | {:error, :not_held | error}
  def renew(cluster, name, token, ttl, options \\ []) do
    %{ttl: ttl, timeout: timeout} =
      Leadership.options!([{:ttl, ttl} | options], ttl: nil, timeout: Leadership.timeout())

    with {:ok, bytes} <- Name.encode(name) do
      done(cluster, {:renew, :lock, bytes, token!(token), ttl}, timeout)
    end
  end

  @doc """
  Gives a lock back. `{:error, :not_held}`: it was not, or no longer, held under this token.

  Any process of this node that has the token may do so. Options: `:timeout`.
  """
  @spec release(Tiebeam.name(), name, token, keyword) :: :ok | {:error, :not_held | error}
  def release(cluster, name, token, options \\ []) do
    %{timeout: timeout} = Leadership.options!(options, timeout: Leadership.timeout())

    with {:ok, bytes} <- Name.encode(name) do
      done(cluster, {:release, :lock, bytes, token!(token)}, timeout)
    end
  end

  defp done(cluster, command, timeout) do
    case Leadership.ask(cluster, command, timeout) do
      {:done, _token} -> :ok
      other -> Leadership.error(other)
    end
  end

  defp token!(token) do
    if Leadership.revision?(token),
      do: token,
      else: raise(ArgumentError, "expected a token to be a number, got: #{inspect(token)}")
  end

  @doc """
  Takes a lock, runs a function with its token, and gives it back.

  The function runs in a process of its own, which is killed when the lock is lost; then the answer is `{:error, :lost}`. With
  `:ttl` that is so after as many milliseconds at the latest. If the function fails the caller exits with its reason; if the
  caller ends the function is killed. The options are those of `acquire/3`.

      iex> Tiebeam.Lock.with(MyApp.Cluster, "report", [timeout: 1_000], fn _token -> :written end)
      {:ok, :written}
  """
  @spec with(Tiebeam.name(), name, keyword, (token -> result)) :: {:ok, result} | {:error, :lost | error}
        when result: term
  def with(cluster, name, options \\ [], work) when is_function(work, 1) do
    guard = %{
      take: fn -> acquire(cluster, name, options) end,
      left: fn _token -> :infinity end,
      release: fn token -> release(cluster, name, token) end
    }

    Guard.run(cluster, guard, work)
  end

  @doc """
  The locks that are held, as far as this node knows, in the order of their names. Reads a table and never waits.

      iex> {:ok, token} = Tiebeam.Lock.acquire(MyApp.Cluster, "listed", metadata: :nightly)
      iex> held = Tiebeam.Lock.list(MyApp.Cluster)
      iex> Enum.find(held, &(&1.name == "listed")) == %{name: "listed", token: token, metadata: :nightly, pid: self()}
      true
  """
  @spec list(Tiebeam.name()) :: [holding]
  def list(cluster) do
    rows = :ets.select(Table.agreed_of(cluster), [{{{:lock, :_}, :_, :_, :_}, [], [:"$_"]}])

    for {{:lock, name}, token, pid, metadata} <- rows,
        do: %{name: name, token: token, pid: pid, metadata: metadata}
  end
end
