defmodule Tiebeam.Discovery.Resolver do
  @moduledoc false
  # Questions to name servers: all addresses, or all SRV targets, of a name. Blocks while it asks.

  # How long one name server may take to answer one question, and how often it is asked again.
  @answer_time 2_000
  @retries 2

  # How long one question may take in all, with several servers.
  @total_time 15_000

  @typedoc "Name servers to ask instead of the system's; `nil` for those."
  @type servers :: [{:inet.ip_address(), :inet.port_number()}] | nil

  @doc "All IPv4 and IPv6 addresses of a name; `:some` if one of the two questions was not answered."
  @spec addresses(String.t(), servers) ::
          {:ok | :some, [:inet.ip_address()]} | {:error, {type :: atom, reason :: term}}
  def addresses(name, servers) do
    case {records(name, :a, servers), records(name, :aaaa, servers)} do
      {{:ok, v4}, {:ok, v6}} -> {:ok, v4 ++ v6}
      {{:ok, [_ | _] = v4}, {:error, _reason}} -> {:some, v4}
      {{:error, _reason}, {:ok, [_ | _] = v6}} -> {:some, v6}
      {{:error, reason}, _v6} -> {:error, {:a, reason}}
      {_v4, {:error, reason}} -> {:error, {:aaaa, reason}}
    end
  end

  @doc "The targets of all SRV records of a name."
  @spec targets(String.t(), servers) :: {:ok, [String.t()]} | {:error, {:srv, reason :: term}}
  def targets(name, servers) do
    case records(name, :srv, servers) do
      {:ok, records} -> {:ok, for({_priority, _weight, _port, target} <- records, do: to_string(target))}
      {:error, reason} -> {:error, {:srv, reason}}
    end
  end

  @doc """
  The full names to ask for in turn: the name itself, and in the domains of the search list, these first if it has no dot. One with a
  dot at its end is full.

      iex> Tiebeam.Discovery.Resolver.full_names("app", ["ns.svc.local"])
      ["app.ns.svc.local", "app"]
      iex> Tiebeam.Discovery.Resolver.full_names("app.ns", ["svc.local"])
      ["app.ns", "app.ns.svc.local"]
      iex> Tiebeam.Discovery.Resolver.full_names("app.ns.", ["svc.local"])
      ["app.ns"]
  """
  @spec full_names(String.t(), [String.t()]) :: [String.t()]
  def full_names(name, search) do
    searched = for domain <- search, do: name <> "." <> domain

    cond do
      String.ends_with?(name, ".") -> [String.trim_trailing(name, ".")]
      String.contains?(name, ".") -> [name | searched]
      true -> searched ++ [name]
    end
  end

  # Those of the first name that has any; none if all servers say so; otherwise why it is not known.
  defp records(name, type, servers) do
    search = if servers, do: [], else: search_list()

    name
    |> full_names(search)
    |> Enum.reduce_while({:ok, []}, fn name, so_far ->
      case ask(name, type, servers) do
        {:ok, [_ | _]} = found -> {:halt, found}
        {:ok, []} -> {:cont, so_far}
        {:error, _reason} = error -> {:cont, error}
      end
    end)
  end

  # As `/etc/resolv.conf` has it, which inet reads by itself.
  defp search_list, do: for(domain <- Keyword.get_values(:inet.get_rc(), :search), do: to_string(domain))

  defp ask(name, type, servers) do
    options = [timeout: @answer_time, retry: @retries] ++ if(servers, do: [nameservers: servers], else: [])

    case :inet_res.resolve(to_charlist(name), :in, type, options, @total_time) do
      {:ok, message} ->
        answers = :inet_dns.msg(message, :anlist)
        {:ok, for(record <- answers, :inet_dns.rr(record, :type) == type, do: :inet_dns.rr(record, :data))}

      {:error, {reason, _message}} ->
        answered(reason)

      {:error, reason} ->
        answered(reason)
    end
  end

  defp answered(:nxdomain), do: {:ok, []}
  defp answered(reason), do: {:error, reason}

  @doc "Whether it is a list of name servers, or `nil`."
  @spec servers?(term) :: boolean
  def servers?(nil), do: true

  def servers?(servers) when is_list(servers) and servers != [] do
    Enum.all?(servers, fn
      {address, port} -> :inet.is_ip_address(address) and port in 1..0xFFFF
      _other -> false
    end)
  end

  def servers?(_other), do: false
end
